"""KubeEdge's older task messages, as its Go types are written: keys without tags, read without regard to case."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import prepull
from shared.prepull import State, parse_request, parse_resource_down, parse_resource_up, parse_response, response
from shared.wire import Operation, Report, WireError


def test_a_check_is_read_with_its_items() -> None:
    request = parse_request(
        {"TaskID": "job", "Type": "prepull", "State": "Checking", "Item": {"CheckItem": ["disk", "cpu"]}}
    )
    operation, dispatch = request.dispatch()
    assert (request.state, operation) == (State.CHECKING, Operation.CHECK)
    assert dispatch.imagePrePullTemplate.checkItems == ["disk", "cpu"]
    assert dispatch.task is None


def test_a_pull_is_read_with_all_that_it_needs() -> None:
    item = {"Images": ["a", "b"], "NodeName": "n", "Secret": "ns/s", "RetryTimes": 2, "CheckItems": ["disk"]}
    operation, dispatch = parse_request({"State": "Pulling", "Item": item}).dispatch()
    template = dispatch.imagePrePullTemplate
    assert operation is Operation.PULL
    assert (template.images, template.imageSecrets, template.retryTimes) == (["a", "b"], "ns/s", 2)
    assert template.checkItems == []  # they had their own message


@pytest.mark.parametrize("content", [{}, {"State": ""}, {"State": "Init", "Item": None}, {"state": "Init"}])
def test_no_state_asks_for_a_sign_of_life(content: Any) -> None:
    assert parse_request(content).state is State.INIT


def test_keys_are_read_without_regard_to_case() -> None:
    assert parse_request({"state": "Pulling", "item": {"IMAGES": ["a"], "secret": "n/s"}}).images == ("a",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"State": "Dancing"}, "State: 'Dancing' is not known; it must be empty or one of Init, Checking, Pulling"),
        ({"State": "Pulling", "Item": {"Images": []}}, "Item.Images: empty"),
        ({"State": "Pulling", "Item": {"Images": None}}, "Item.Images: empty"),
        ({"State": "Pulling", "Item": {"Images": "a"}}, "item.images: Input should be a valid list"),
        ({"State": "Pulling", "Item": {"Images": ["a"], "RetryTimes": -1}}, "item.retrytimes"),
        ({"State": 5}, "state: Input should be a valid string"),
        ({"State": "Checking", "Item": []}, "item: "),
        ("text", "document"),
        (None, "document"),
    ],
)
def test_what_cannot_be_read_is_named(content: Any, words: str) -> None:
    with pytest.raises(WireError, match="^" + words.split("(")[0].replace("[", r"\[")):
        parse_request(content)


@pytest.mark.parametrize(
    "resource",
    ["prepull/job/node", "prepull/job/node/n/more", "prepull/JOB/node/n", "task/job/node/n", "prepull//node/n", ""],
)
def test_other_resources_are_none(resource: str) -> None:
    with pytest.raises(WireError, match="is no prepull task"):
        parse_resource_down(resource)


def test_a_job_named_node_is_no_trap() -> None:
    assert parse_resource_down(prepull.resource_down("node", "node")) == ("node", "node")


def test_a_pulls_answer_has_the_results_as_json_text() -> None:
    extend = json.dumps(
        [{"image": "a", "status": "True", "reason": ""}, {"image": "b", "status": "False", "reason": "denied"}]
    )
    report = Report(action="Pull", succ=False, finishTime="2026-01-02T03:04:05Z", reason="1 of 2", extend=extend)
    content = response("n", report)
    assert json.loads(content.pop("ExternalMessage")) == [
        {"image": "a", "state": "Successful", "reason": ""},
        {"image": "b", "state": "Failed", "reason": "denied"},
    ]
    assert content == {
        "NodeName": "n",
        "State": "",
        "Event": "Pull",
        "Action": "Failure",
        "Reason": "1 of 2",
        "Time": "2026-01-02T03:04:05Z",
    }


def test_a_check_has_no_results() -> None:
    assert response("n", Report(action="Check", succ=True))["ExternalMessage"] == ""


# --- The hub's side ---------------------------------------------------------------------------------------------------

names = st.from_regex(r"[a-z0-9]([-.a-z0-9]{0,60}[a-z0-9])?", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(names, names, st.lists(texts.filter(bool), min_size=1, max_size=5), texts, st.integers(0, 1000))
def test_what_the_hub_asks_for_is_read_by_the_other_side_as_it_was_meant(
    job: str, node: str, images: list[str], secret: str, retries: int
) -> None:
    check = parse_request(json.loads(json.dumps(prepull.check_content(job, ["disk", "cpu"]))))
    assert (check.state, check.check_items, check.images) == (State.CHECKING, ("disk", "cpu"), ())
    content = prepull.pull_content(job, node, images=images, secret=secret, retry_times=retries, check_items=["disk"])
    pull = parse_request(json.loads(json.dumps(content)))
    assert (pull.state, pull.images, pull.secret, pull.retry_times) == (State.PULLING, tuple(images), secret, retries)
    assert parse_resource_down(prepull.resource_down(job, node)) == (job, node)
    assert parse_resource_up(prepull.resource_up(job, node)) == (job, node)


@given(st.booleans(), texts, st.lists(st.tuples(texts, st.booleans(), texts), max_size=5))
def test_a_report_is_read_back_as_it_was_sent(succ: bool, reason: str, images: list[tuple[str, bool, str]]) -> None:
    extend = json.dumps([{"image": image, "status": str(ok), "reason": why} for image, ok, why in images])
    sent = Report(action="Pull", succ=succ, finishTime="2026-01-02T03:04:05Z", reason=reason, extend=extend)
    assert parse_response(json.loads(json.dumps(response("n", sent)))).images() == sent.images()
    read = parse_response(response("n", sent))
    assert (read.action, read.succ, read.finishTime, read.reason) == ("Pull", succ, sent.finishTime, reason)


def test_a_report_as_edgecore_writes_it_is_read() -> None:
    content = (
        '{"NodeName":"edge-1","State":"","Event":"Pull","Action":"Failure","Reason":"pull image failed, err: denied",'
        '"Time":"2026-01-02T03:04:05Z","ExternalMessage":"[{\\"image\\":\\"r.io/a:v1\\",\\"state\\":\\"Successful\\"},'
        '{\\"image\\":\\"r.io/b:v1\\",\\"state\\":\\"Failed\\",\\"reason\\":\\"denied\\"}]"}'
    )
    report = parse_response(json.loads(content))
    assert (report.action, report.succ, report.reason) == ("Pull", False, "pull image failed, err: denied")
    assert [(one.image, one.ok, one.reason) for one in report.images()] == [
        ("r.io/a:v1", True, ""),
        ("r.io/b:v1", False, "denied"),
    ]


@pytest.mark.parametrize("external", ["", "null", "[]"])
def test_a_report_without_images_has_none(external: str) -> None:
    report = parse_response({"Event": "Pull", "Action": "Success", "ExternalMessage": external})
    assert report.succ
    assert report.images() == []


@pytest.mark.parametrize(
    ("reason", "readable"),
    [
        (
            '{"cpu":"ok","disk":"current disk usage is 91.20%, which exceeds the maximum usage of 80%","mem":"ok"}',
            "disk: current disk usage is 91.20%, which exceeds the maximum usage of 80%",
        ),
        ('{"cpu":"busy","mem":"full"}', "cpu: busy; mem: full"),
        ('{"cpu":"ok"}', '{"cpu":"ok"}'),
        ("unmarshal failed", "unmarshal failed"),
        ('["a"]', '["a"]'),
        ("{" * 100_000, "{" * 4096),
        ("", ""),
    ],
)
def test_a_failed_checks_reason_is_made_readable(reason: str, readable: str) -> None:
    assert parse_response({"Event": "Check", "Action": "Failure", "Reason": reason}).reason == readable


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "text",
        {},
        {"Event": "Pull"},
        {"Event": "Pull", "Action": "Maybe"},
        {"Event": 5, "Action": "Success"},
        {"Event": "Pull", "Action": "Success", "ExternalMessage": "{"},
        {"Event": "Pull", "Action": "Success", "ExternalMessage": "[1]"},
        {"Event": "Pull", "Action": "Success", "ExternalMessage": json.dumps([{"image": "a"}] * 1001)},
        {"Event": "Pull", "Action": "Success", "ExternalMessage": json.dumps([{"image": "x" * 2000}])},
    ],
)
def test_a_report_that_cannot_be_read_is_refused(content: Any) -> None:
    with pytest.raises(WireError):
        parse_response(content)


@pytest.mark.parametrize(
    "resource", ["", "task/a", "prepull/a/node/b", "task/a/node/b/c", "task/A/node/b", "task//node/b"]
)
def test_the_resource_of_another_report_is_refused(resource: str) -> None:
    with pytest.raises(WireError, match="is no prepull task"):
        parse_resource_up(resource)
