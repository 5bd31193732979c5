"""A job's images in parts of one credential, and what their reports come to, however often and in whatever order."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from cloudhub.store.changes import TaskRow, change_task
from cloudhub.store.records import Job, TaskChange
from cloudhub.taskmanager.lifecycle import Refusal, Tally, TaskEvent, TaskState
from cloudhub.taskmanager.parts import Part, failures, in_order, joined, parts_of, remaining
from shared.jobs import State

HOSTS = ("one.example", "two.example:5000", "docker.io", "open.example")
images_ = st.lists(
    st.tuples(st.sampled_from(HOSTS), st.sampled_from(("a", "b/c", "d"))).map("/".join),
    min_size=1,
    max_size=9,
    unique=True,
)
credential = st.fixed_dictionaries(
    {"registry": st.sampled_from(HOSTS)},
    optional={
        "username": st.sampled_from(("tiger", "lion")),
        "password": st.sampled_from(("pass1234", "roar5678")),
        "identity_token": st.just("token9999"),
    },
)
credentials_ = st.dictionaries(
    st.tuples(st.sampled_from(HOSTS), st.sampled_from(("a", "b/c", "d"))).map("/".join), credential
)
API_HOSTS = {"docker.io": "registry-1.docker.io"}


@given(images_, credentials_)
def test_every_image_is_in_one_part_with_its_own_credential_and_no_other(
    images: list[str], credentials: dict[str, dict[str, str]]
) -> None:
    parts = parts_of(images, credentials)
    assert sorted(image for part in parts for image in part.images) == sorted(images)
    assert len({part.key for part in parts}) == len(parts)
    assert [part.images[0] for part in parts] == sorted((part.images[0] for part in parts), key=images.index)
    for part in parts:
        assert bool(part.flat) == bool(part.key)
        for image in part.images:
            found = credentials.get(image)
            if found is None:
                assert part.flat == {}
                continue
            host = image.partition("/")[0]
            keys = {key: value for key, value in found.items() if key != "registry"}
            assert part.flat == {"server_address": f"https://{API_HOSTS.get(host, host)}", **keys}
        assert "pass1234" not in repr(part)
        assert "token9999" not in repr(part)


@given(images_)
def test_images_without_a_credential_are_one_part(images: list[str]) -> None:
    assert parts_of(images, {}) == (Part(tuple(images)),)


@given(images_, credentials_, st.data())
def test_what_remains_is_asked_for_part_by_part_until_nothing_does(
    images: list[str], credentials: dict[str, dict[str, str]], data: st.DataObject
) -> None:
    parts = parts_of(images, credentials)
    done = set(data.draw(st.lists(st.sampled_from(images))))
    asked: list[str] = []
    while (part := remaining(parts, done)) is not None:
        assert done.isdisjoint(part.images)
        assert part.key in {whole.key for whole in parts if set(part.images) <= set(whole.images)}
        asked += part.images
        done |= set(part.images)
    assert done == set(images)
    assert len(asked) == len(set(asked))


outcomes_ = st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans(), st.sampled_from(("", "denied"))), max_size=8)


@given(outcomes_, outcomes_)
def test_what_was_known_first_stays(known: list[tuple[str, bool, str]], reported: list[tuple[str, bool, str]]) -> None:
    known = list({image: (image, ok, why) for image, ok, why in known}.values())
    after = {image: (image, ok, why) for image, ok, why in joined(known, reported)}
    assert all(after[image] == (image, ok, why) for image, ok, why in known)
    assert set(after) == {image for image, _, _ in (*known, *reported)}
    assert [image for image, _, _ in in_order(list(after.values()), "abcdef")] == [
        one for one in "abcdef" if one in after
    ]


def test_failures_are_told_image_by_image() -> None:
    assert failures([("a", True, ""), ("b", False, "denied"), ("c", False, "")]) == "b: denied; c: not pulled"


def job() -> Job:
    return Job(
        uid="u", name="j", generation=1, concurrency=1, failure_tolerate="0", timeout_seconds=9, state=State.PULLING,
        event=None, action=None, reason="", stopped=False, tally=Tally(pulling=1), created_at=0, changed_at=0,
        finished_at=None, version=1, published=0,
    )  # fmt: skip


WANTED = ("a", "b", "c", "d")
reports_ = st.lists(
    st.lists(
        st.tuples(st.sampled_from(WANTED), st.booleans(), st.sampled_from(("", "denied"))), min_size=1, max_size=4
    ),
    max_size=8,
)


@given(reports_, st.sampled_from((TaskState.CHECKING, TaskState.PULLING)))
def test_a_task_ends_when_every_image_was_reported_and_as_they_were_reported_first(
    reports: list[list[tuple[str, bool, str]]], state: TaskState
) -> None:
    row = TaskRow("u", "n", state, 1, None, 9.0)
    tally = Tally()
    tally.add(state, 1)
    the_job = replace(job(), tally=tally)
    first: dict[str, bool] = {}
    for images in reports:
        new = {image for image, _, _ in images} - set(first)
        finished = row.state.finished
        before = replace(row)
        event = TaskEvent.PULL_SUCCEEDED if all(ok for _, ok, _ in images) else TaskEvent.PULL_FAILED
        # A list may name an image twice; the last word of one report counts.
        change = TaskChange(job_uid="u", node="n", event=event, at=1.0, images=images, wanted=WANTED)
        outcome = change_task(row, the_job, change)
        if finished or not new:
            assert outcome.refusal is (Refusal.FINISHED if finished else Refusal.NO_EFFECT)
            assert row == before
            continue
        first |= {image: ok for image, ok, _ in images if image in new}
        assert outcome.applied
        assert row.images is not None
        assert {image: ok for image, ok, _ in json.loads(row.images)} == first
        if len(first) < len(WANTED):
            assert (row.state, row.deadline) == (TaskState.PULLING, 9.0)
        else:
            assert row.state is (TaskState.SUCCESSFUL if all(first.values()) else TaskState.FAILED)
            assert row.deadline is None
            assert bool(row.reason) == (not all(first.values()) and before.images is not None)
    assert the_job.tally.total == 1
