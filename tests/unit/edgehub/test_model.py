"""Keys of tasks and the shapes of reports."""

from __future__ import annotations

import json

from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgehub.tasks.model import check_report, pull_report, shorten
from shared import wire
from shared.wire import Operation, Report, new_message
from tests.unit.edgehub.scripted import task


def test_a_task_of_our_hub_is_known_by_its_uid_and_attempt() -> None:
    asked = task("a", "a", "b", uid="u", attempt=3)
    assert (asked.key, asked.tracked, asked.attempt, asked.images) == ("u", True, 3, ("a", "b"))
    assert asked.extras is not None
    assert (asked.extras.job_uid, asked.extras.attempt) == ("u", 3)
    assert asked.resource == "operations.kubeedge.io/v1alpha2/imageprepulljob/job/node/n1"


def test_a_task_of_a_cloudcore_is_known_by_its_job_and_what_it_asks() -> None:
    asked = task("a", uid=None)
    assert (asked.tracked, asked.extras) == (False, None)
    assert asked.key == task("a", uid=None).key
    others = [
        task("b", uid=None),
        task("a", uid=None, retries=1),
        task("a", uid=None, job="other"),
        task("a", uid=None, operation=Operation.PULL),
    ]
    assert len({asked.key, *(other.key for other in others)}) == 5


def test_a_successful_pull_reports_as_kubeedge_does() -> None:
    content = pull_report(reasons={"a": ""}, extras=None).model_dump(mode="json", exclude_none=True)
    assert set(content) == {"action", "succ", "finishTime", "reason", "extend"}
    assert (content["action"], content["succ"], content["reason"]) == ("Pull", True, "")
    assert json.loads(content["extend"]) == [{"image": "a", "status": "True", "reason": ""}]


def test_a_failed_pull_says_how_many_and_why() -> None:
    report = pull_report(reasons={"a": "", "b": "denied", "c": "gone"}, extras=None)
    assert report.reason == "2 of 3 images failed: b: denied"
    assert [(result.image, result.ok, result.reason) for result in report.images()] == [
        ("a", True, ""),
        ("b", False, "denied"),
        ("c", False, "gone"),
    ]


def test_a_failed_check_has_its_reason() -> None:
    report = check_report(reason="disk: full", extras=None)
    assert (report.action, report.succ, report.reason, report.extend) == ("Check", False, "disk: full", "")


@settings(max_examples=25)  # each is up to 1000 images; the worst of them stand below by name
@example('"' * 6000, 1000)
@example("\\" * 6000, 1000)
@example("\n" * 6000, 500)
@example("貓" * 6000, 1000)
@given(
    st.text(alphabet='a"\\貓\n', min_size=1, max_size=20).map(lambda text: text * 300),
    st.integers(min_value=1, max_value=1000),
)
def test_a_report_always_fits_a_frame_and_is_read_by_the_hub(reason: str, images: int) -> None:
    report = pull_report(reasons={f"registry.example/{n}": reason for n in range(images)}, extras=None)
    content = report.model_dump(mode="json", exclude_none=True)
    frame = wire.encode(new_message(source="websocket", group="hub", resource="r", operation="o", content=content))
    assert len(frame.encode()) <= wire.MAX_FRAME_BYTES
    read = Report.model_validate(wire.decode(frame).content)
    assert len(read.images()) in (0, images)


def test_a_thousand_failures_are_told_with_shorter_reasons() -> None:
    report = pull_report(reasons={f"registry.example/{n}": "because " * 500 for n in range(1000)}, extras=None)
    results = report.images()
    assert len(results) == 1000
    assert results[999].reason.startswith("because because")


def test_shortened_text_says_so() -> None:
    assert shorten("abcdefgh", 8) == "abcdefgh"
    assert shorten("abcdefghi", 8) == "abcde..."
    assert shorten("abc", 0) == ""
