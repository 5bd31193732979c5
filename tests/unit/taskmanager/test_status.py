"""The status as a projection: KubeEdge's keys of both versions, ours, and their bounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudhub.store.records import Entry, ImageOutcome, Job
from cloudhub.taskmanager.lifecycle import Tally, TaskState
from cloudhub.taskmanager.progress import Told
from cloudhub.taskmanager.status import MAX_ENTRIES_BYTES, counts, patch, project
from shared.jobs import Action, Event, JobStatus, State


def _job(**values: Any) -> Job:
    defaults: dict[str, Any] = {
        "uid": "u1",
        "name": "job",
        "generation": 3,
        "concurrency": 1,
        "failure_tolerate": "0.1",
        "timeout_seconds": 300,
        "state": State.PULLING,
        "event": Event.CHECK,
        "action": Action.SUCCESS,
        "reason": "",
        "stopped": False,
        "tally": Tally(pending=1, waiting=2, checking=3, pulling=4, successful=5, failed=6, not_started=7),
        "created_at": 1_714_157_500.0,
        "changed_at": 1_714_157_501.9,
        "finished_at": None,
        "version": 4,
        "published": 0,
    }
    return Job(**{**defaults, **values})


def _entry(
    node: str = "n",
    state: TaskState = TaskState.SUCCESSFUL,
    *,
    event: Event | None = Event.PULL,
    action: Action | None = Action.SUCCESS,
    reason: str = "",
    images: Sequence[ImageOutcome] = (),
    checked_at: float | None = None,
) -> Entry:
    return Entry(node, state, event, action, reason, images, 1_714_157_501.0, checked_at)


GUIDES_KEYS = frozenset({"state", "event", "action", "reason", "time", "status"})
"""Of KubeEdge's v1alpha1."""


def result(entry: Entry) -> dict[str, Any]:
    """As v1alpha2 shows it."""
    (shown,) = project(_job(), [entry])["nodeStatus"]
    found: dict[str, Any] = shown
    return found


def test_a_running_job() -> None:
    status = project(_job(), [_entry("a", TaskState.PENDING, event=None, action=None)])
    assert status == {
        "state": "Pulling",
        "phase": "InProgress",
        "event": "Check",
        "action": "Success",
        "time": "2024-04-26T18:51:41Z",
        "status": [{"nodeStatus": {"nodeName": "a", "state": "Init"}}],
        "nodeStatus": [{"nodeName": "a", "phase": "Pending"}],
        "counts": {"total": 28, "pending": 3, "running": 7, "succeeded": 5, "failed": 13},
        "startTime": "2024-04-26T18:51:40Z",
        "observedGeneration": 3,
        "conditions": [
            {
                "type": "Progressing",
                "status": "True",
                "reason": "NodeTasksRunning",
                "message": "node tasks are under way",
                "lastTransitionTime": "2024-04-26T18:51:40Z",
                "observedGeneration": 3,
            }
        ],
    }


def test_an_ended_job_has_its_condition_and_times() -> None:
    status = project(
        _job(state=State.FAILED, event=Event.PULL, action=Action.FAILURE, reason="why", finished_at=1_714_157_510.0), []
    )
    assert (status["state"], status["reason"], status["completionTime"]) == ("Failed", "why", "2024-04-26T18:51:50Z")
    found = {condition["type"]: (condition["status"], condition["message"]) for condition in status["conditions"]}
    assert found["Progressing"][0] == "False"
    assert found["Failed"] == ("True", "why")
    done = project(_job(state=State.SUCCESSFUL, tally=Tally(successful=2), finished_at=1.0), [])
    assert {condition["type"] for condition in done["conditions"]} == {"Progressing", "Complete"}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.integers(0, 50), min_size=7, max_size=7))
def test_the_counts_add_up_whatever_they_are(numbers: list[int]) -> None:
    shown = counts(_job(tally=Tally(*numbers)))
    assert shown.total == shown.pending + shown.running + shown.succeeded + shown.failed == sum(numbers)


def test_who_pulls_is_shown_with_how_far_it_is_and_nobody_else() -> None:
    told = Told(images=1, total_images=3, bytes=50, total_bytes=0, at=1_714_157_502.5)
    states = (TaskState.CHECKING, TaskState.PULLING, TaskState.SUCCESSFUL, TaskState.PENDING)
    entries = [_entry(str(state), state) for state in states]
    progress = {**{str(state): told for state in states}, "stranger": told}
    status = project(_job(), entries, None, progress)
    shown = {"images": 1, "totalImages": 3, "bytes": 50, "time": "2024-04-26T18:51:42Z"}
    expected = [None, shown, None, None]
    assert [entry["nodeStatus"].get("progress") for entry in status["status"]] == expected
    assert [entry.get("progress") for entry in status["nodeStatus"]] == expected
    known = project(_job(), entries, None, {"Pulling": replace(told, total_bytes=90)})
    assert known["nodeStatus"][1]["progress"]["totalBytes"] == 90
    assert JobStatus.model_validate(known).dump() == json.loads(json.dumps(known))


def test_five_hundred_that_pull_fit_with_how_far_they_are() -> None:
    node = "edge-node-number-{:05d}.site-17.example"
    most = Told(images=1000, total_images=1000, bytes=2**53, total_bytes=2**53, at=1_714_157_502.5)
    entries = [_entry(node.format(number), TaskState.PULLING, event=Event.CHECK) for number in range(500)]
    status = project(_job(), entries, None, {entry.node: most for entry in entries})
    assert len(json.dumps([status["status"], status["nodeStatus"]], separators=(",", ":"))) < 300_000
    assert len(status["status"]) >= 450


def test_what_is_projected_is_what_the_models_say() -> None:
    entries = [
        _entry("a", images=[("i", True, ""), ("j", False, "denied")], checked_at=1_714_157_400.0),
        _entry("b", TaskState.FAILED, event=Event.TIME_OUT, action=Action.FAILURE, reason="late"),
        _entry("c", TaskState.NOT_STARTED, event=Event.INIT, action=Action.FAILURE, reason="not started: x"),
        _entry("d", TaskState.WAITING, event=None, action=None, reason="waiting"),
        _entry("e", TaskState.CHECKING, event=Event.INIT),
    ]
    status = project(_job(reason="r"), entries)
    assert JobStatus.model_validate(status).dump() == json.loads(json.dumps(status))
    assert [entry["nodeStatus"]["state"] for entry in status["status"]] == [
        "Successful",
        "Failed",
        "Failed",
        "Init",
        "Checking",
    ]


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        (State.INIT, "Init"),
        (State.CHECKING, "InProgress"),
        (State.PULLING, "InProgress"),
        (State.SUCCESSFUL, "Completed"),
        (State.FAILED, "Failure"),
    ],
)
def test_v1alpha2_has_a_word_for_every_state_of_a_job(state: State, phase: str) -> None:
    assert project(_job(state=state, finished_at=1.0 if state.finished else None), [])["phase"] == phase


@pytest.mark.parametrize(
    ("state", "phase"),
    [
        (TaskState.PENDING, "Pending"),
        (TaskState.WAITING, "Pending"),
        (TaskState.CHECKING, "InProgress"),
        (TaskState.PULLING, "InProgress"),
        (TaskState.SUCCESSFUL, "Successful"),
        (TaskState.FAILED, "Failure"),
        (TaskState.NOT_STARTED, "Failure"),
    ],
)
def test_v1alpha2_has_a_word_for_every_state_of_a_node_task(state: TaskState, phase: str) -> None:
    assert result(_entry(state=state))["phase"] == phase


def test_a_node_that_was_not_heard_of_in_time_is_unknown_as_in_kubeedge() -> None:
    late = _entry(
        state=TaskState.FAILED, event=Event.TIME_OUT, action=Action.FAILURE, reason="late", checked_at=1_714_157_499.0
    )
    assert result(late) == {
        "nodeName": "n",
        "phase": "Unknown",
        "reason": "late",
        "actionFlow": [{"action": "Check", "status": "True", "time": "2024-04-26T18:51:39Z"}],
    }


def test_the_action_flow_is_what_the_node_reported() -> None:
    checked = {"action": "Check", "status": "True", "time": "2024-04-26T18:51:39Z"}
    moment = 1_714_157_499.0
    shown = result(_entry(images=[("i", True, ""), ("j", True, "")], checked_at=moment))
    assert shown == {
        "nodeName": "n",
        "phase": "Successful",
        "actionFlow": [checked, {"action": "Pull", "status": "True", "time": "2024-04-26T18:51:41Z"}],
        "imageStatus": [{"image": "i", "status": "True"}, {"image": "j", "status": "True"}],
    }
    assert result(_entry(state=TaskState.PULLING, event=Event.CHECK, checked_at=moment))["actionFlow"] == [checked]
    # Asked to pull alone, or the report of the check was lost.
    assert [step["action"] for step in result(_entry())["actionFlow"]] == ["Pull"]
    for event, action in ((None, None), (Event.INIT, Action.SUCCESS), (Event.INIT, Action.FAILURE)):
        assert "actionFlow" not in result(_entry(event=event, action=action))


def test_what_failed_says_why_in_its_action_and_its_image() -> None:
    check = result(_entry(state=TaskState.FAILED, event=Event.CHECK, action=Action.FAILURE, reason="disk: full"))
    assert check == {
        "nodeName": "n",
        "phase": "Failure",
        "reason": "disk: full",
        "actionFlow": [
            {"action": "Check", "status": "False", "reason": "disk: full", "time": "2024-04-26T18:51:41Z"},
        ],
    }
    pull = result(
        _entry(
            state=TaskState.FAILED,
            action=Action.FAILURE,
            reason="j: denied",
            images=[("i", True, ""), ("j", False, "denied")],
            checked_at=1.0,
        )
    )
    assert [(step["action"], step["status"]) for step in pull["actionFlow"]] == [("Check", "True"), ("Pull", "False")]
    assert pull["imageStatus"][1] == {"image": "j", "status": "False", "reason": "denied"}


def test_only_the_keys_that_are_kept_are_made() -> None:
    whole = project(_job(reason="why"), [_entry()])
    for keys in (GUIDES_KEYS, frozenset({"phase", "reason", "nodeStatus"}), frozenset[str]()):
        assert project(_job(reason="why"), [_entry()], keys) == {key: whole[key] for key in keys}
    assert project(_job(reason="why"), [_entry()], frozenset(whole) | {"theirs"}) == whole


def test_both_versions_tell_of_the_same_nodes_and_share_the_room() -> None:
    entries = [_entry(f"n{number}", reason="☃" * 500) for number in range(500)]
    both = project(_job(), entries)
    names = [entry["nodeName"] for entry in both["nodeStatus"]]
    assert [entry["nodeStatus"]["nodeName"] for entry in both["status"]] == names
    alone = project(_job(), entries, GUIDES_KEYS)
    assert 1.8 < len(alone["status"]) / len(both["status"]) < 3.2
    for status in (both, alone):
        size = len(json.dumps(status, ensure_ascii=False, separators=(",", ":")).encode())
        assert 0.9 * MAX_ENTRIES_BYTES < size < 1.02 * MAX_ENTRIES_BYTES


def test_the_object_stays_small_whatever_nodes_say() -> None:
    nasty = "☃" * 1024
    images = [(f"registry.example/{'x' * 200}/{number}", False, nasty) for number in range(100)]
    status = project(_job(), [_entry(f"n{number}", reason=nasty, images=images) for number in range(500)])
    entries = {key: status[key] for key in ("status", "nodeStatus")}
    assert len(json.dumps(entries, ensure_ascii=False).encode()) <= MAX_ENTRIES_BYTES * 1.05
    assert len(status["status"]) > 0
    assert status["counts"]["total"] == 28


def test_five_hundred_entries_of_the_usual_kind_fit() -> None:
    entries = [
        _entry(
            f"edge-node-{number:05}.region.example",
            images=[("registry.example/team/app:v1.2.3", True, "")],
            checked_at=1.0,
        )
        for number in range(500)
    ]
    status = project(_job(), entries)
    assert len(status["status"]) == len(status["nodeStatus"]) == 500
    assert len(json.dumps(status, separators=(",", ":"))) < 270_000


def test_a_key_that_went_is_null_in_the_patch() -> None:
    status = project(_job(), [])
    assert patch(status, {"reason", "completionTime", "state"}) == {**status, "reason": None, "completionTime": None}
