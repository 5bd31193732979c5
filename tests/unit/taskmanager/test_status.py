"""The status as a projection: KubeEdge's keys, ours, and their bounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudhub.store.records import Entry, ImageOutcome, Job
from cloudhub.taskmanager.lifecycle import Tally, TaskState
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
) -> Entry:
    return Entry(node, state, event, action, reason, images, 1_714_157_501.0)


def test_a_running_job() -> None:
    status = project(_job(), [_entry("a", TaskState.PENDING, event=None, action=None)])
    assert status == {
        "state": "Pulling",
        "event": "Check",
        "action": "Success",
        "time": "2024-04-26T18:51:41Z",
        "status": [{"nodeStatus": {"nodeName": "a", "state": "Init"}}],
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


def test_what_is_projected_is_what_the_models_say() -> None:
    entries = [
        _entry("a", images=[("i", True, ""), ("j", False, "denied")]),
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


def test_the_object_stays_small_whatever_nodes_say() -> None:
    nasty = "☃" * 1024
    images = [(f"registry.example/{'x' * 200}/{number}", False, nasty) for number in range(100)]
    status = project(_job(), [_entry(f"n{number}", reason=nasty, images=images) for number in range(500)])
    assert len(json.dumps(status["status"], ensure_ascii=False).encode()) <= MAX_ENTRIES_BYTES * 1.05
    assert len(status["status"]) > 0
    assert status["counts"]["total"] == 28


def test_five_hundred_entries_of_the_usual_kind_fit() -> None:
    entries = [
        _entry(f"edge-node-{number:05}.region.example", images=[("registry.example/team/app:v1.2.3", True, "")] * 2)
        for number in range(500)
    ]
    status = project(_job(), entries)
    assert len(status["status"]) == 500
    assert len(json.dumps(status)) < 400_000


def test_a_key_that_went_is_null_in_the_patch() -> None:
    status = project(_job(), [])
    assert patch(status, {"reason", "completionTime", "state"}) == {**status, "reason": None, "completionTime": None}
