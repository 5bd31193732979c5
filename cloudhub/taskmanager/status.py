"""A job's status as the API shows it: a projection of the job's rows. Pure.

The keys and values of KubeEdge's guide (v1alpha1), those of v1alpha2 beside them, then ours (`shared.jobs.JobStatus`
has all). Only those that the installed definition keeps are made (``keys``). An object of the API must stay far below
etcd's 1.5 MB, and the status is written often, so entries are bounded twice: in number (the caller's query) and in
bytes (`MAX_ENTRIES_BYTES`, for both versions' entries together: both hold the same nodes); the counts are always
complete. Times are of the rows, never of the writing, so that the same rows give the same status.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

from pydantic_core import to_json

from cloudhub.store.records import Entry, Job
from cloudhub.taskmanager.lifecycle import API_STATE, TaskState
from cloudhub.taskmanager.progress import NOTHING, Told
from shared.jobs import Action, Counts, Event, JobPhase, NodePhase, State
from shared.wire import rfc3339

MAX_ENTRIES_BYTES: Final = 260_000
"""With it a job that names 10,000 nodes stays below 400 KB."""
MAX_ENTRY_BYTES: Final = 200_000
"""Of one node: its images are left out of what is larger, so that a thousand of them keep no node from being shown."""
MAX_REASON: Final = 512

JOB_PHASE: Final[Mapping[State, JobPhase]] = {
    State.INIT: JobPhase.INIT,
    State.CHECKING: JobPhase.IN_PROGRESS,
    State.PULLING: JobPhase.IN_PROGRESS,
    State.SUCCESSFUL: JobPhase.COMPLETED,
    State.FAILED: JobPhase.FAILURE,
}
NODE_PHASE: Final[Mapping[TaskState, NodePhase]] = {
    TaskState.PENDING: NodePhase.PENDING,
    TaskState.WAITING: NodePhase.PENDING,
    TaskState.CHECKING: NodePhase.IN_PROGRESS,
    TaskState.PULLING: NodePhase.IN_PROGRESS,
    TaskState.SUCCESSFUL: NodePhase.SUCCESSFUL,
    TaskState.FAILED: NodePhase.FAILURE,
    TaskState.NOT_STARTED: NodePhase.FAILURE,
}
"""But for one that is late: `_phase`."""


def project(
    job: Job, entries: Iterable[Entry], keys: Set[str] | None = None, progress: Mapping[str, Told] = NOTHING
) -> dict[str, Any]:
    """What `JobStatus.dump` would give, made without the models: it is done each second for hundreds of entries.
    ``keys``: those to make; None for all. ``progress``: by node, of those that pull."""
    shown = [
        (key, make)
        for key, make in ((_ENTRIES, _entry), (_RESULTS, _result))
        # Half of the work, and of the object, where only one of them would be kept.
        if keys is None or key in keys
    ]
    bounded = _bounded({key: make(entry, _progress(entry, progress)) for key, make in shown} for entry in entries)
    status = {**_summary(job), **{key: [entry[key] for entry in bounded] for key, _ in shown}}
    return status if keys is None else {key: value for key, value in status.items() if key in keys}


_ENTRIES: Final = "status"
_RESULTS: Final = "nodeStatus"


def _summary(job: Job) -> dict[str, Any]:
    """All but the entries."""
    status: dict[str, Any] = {"state": str(job.state), "phase": str(JOB_PHASE[job.state])}
    if job.event is not None:
        status["event"] = str(job.event)
    if job.action is not None:
        status["action"] = str(job.action)
    if job.reason:
        status["reason"] = job.reason
    status["time"] = _time(job.changed_at)
    status["counts"] = counts(job).model_dump()
    status["startTime"] = _time(job.created_at)
    if job.finished_at is not None:
        status["completionTime"] = _time(job.finished_at)
    status["observedGeneration"] = job.generation
    status["conditions"] = _conditions(job)
    return status


def counts(job: Job) -> Counts:
    tally = job.tally
    return Counts(
        total=tally.total,
        pending=tally.not_begun,
        running=tally.in_flight,
        succeeded=tally.successful,
        failed=tally.failed + tally.not_started,
    )


def _progress(entry: Entry, told: Mapping[str, Told]) -> dict[str, Any] | None:
    if not told or entry.state is not TaskState.PULLING or (at := told.get(entry.node)) is None:
        return None
    shown: dict[str, Any] = {"images": at.images, "totalImages": at.total_images, "bytes": at.bytes}
    if at.total_bytes:
        shown["totalBytes"] = at.total_bytes
    return {**shown, "time": _time(at.at)}


def _entry(entry: Entry, progress: dict[str, Any] | None) -> dict[str, Any]:
    node: dict[str, Any] = {"nodeName": entry.node, "state": str(API_STATE[entry.state])}
    if entry.event is not None:
        node["event"] = entry.event
    if entry.action is not None:
        node["action"] = entry.action
    if entry.reason:
        node["reason"] = _cut(entry.reason)
    if entry.event is not None or entry.reason:
        node["time"] = _time(entry.changed_at)
    if progress is not None:
        node["progress"] = progress
    shown: dict[str, Any] = {"nodeStatus": node}
    if entry.images:
        shown["imageStatus"] = [_image(*image) for image in entry.images]
    return shown


def _image(image: str, ok: bool, reason: str) -> dict[str, str]:
    shown = {"image": image, "state": str(State.SUCCESSFUL if ok else State.FAILED)}
    if reason:
        shown["reason"] = _cut(reason)
    return shown


def _result(entry: Entry, progress: dict[str, Any] | None) -> dict[str, Any]:
    """The same as v1alpha2 has it."""
    shown: dict[str, Any] = {"nodeName": entry.node, "phase": str(_phase(entry))}
    if entry.reason:
        shown["reason"] = _cut(entry.reason)
    if progress is not None:
        shown["progress"] = progress
    flow = _action_flow(entry)
    if flow:
        shown["actionFlow"] = flow
    if entry.images:
        shown["imageStatus"] = [_image_result(*image) for image in entry.images]
    return shown


def _phase(entry: Entry) -> NodePhase:
    """KubeEdge says Unknown of a node that was not heard of in time, and counts it as failed."""
    late = entry.state is TaskState.FAILED and entry.event == Event.TIME_OUT
    return NodePhase.UNKNOWN if late else NODE_PHASE[entry.state]


def _action_flow(entry: Entry) -> list[dict[str, str]]:
    """What the node reported. A check that succeeded has left its time behind; the last report is the entry's own."""
    flow = []
    if entry.checked_at is not None:
        flow.append({"action": str(Event.CHECK), "status": "True", "time": _time(entry.checked_at)})
    last_is_new = entry.event == Event.PULL or (entry.event == Event.CHECK and entry.checked_at is None)
    if last_is_new and entry.action is not None:
        last = {"action": str(entry.event), "status": str(entry.action == Action.SUCCESS)}
        if entry.reason:
            last["reason"] = _cut(entry.reason)
        flow.append({**last, "time": _time(entry.changed_at)})
    return flow


def _image_result(image: str, ok: bool, reason: str) -> dict[str, str]:
    shown = {"image": image, "status": str(ok)}
    if reason:
        shown["reason"] = _cut(reason)
    return shown


def _bounded(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many as fit, from the first."""
    kept: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        entry_size = _size(entry)
        if entry_size > MAX_ENTRY_BYTES:
            entry = {key: {**shown, "imageStatus": []} for key, shown in entry.items()}
            entry_size = _size(entry)
        size += entry_size
        if size > MAX_ENTRIES_BYTES:
            break
        kept.append(entry)
    return kept


def _size(entry: Mapping[str, Any]) -> int:
    """As the API server counts: UTF-8, where a text of another script takes three bytes a character."""
    return sum(len(to_json(shown)) + 1 for shown in entry.values())


def _conditions(job: Job) -> list[dict[str, Any]]:
    if job.finished_at is None:
        return [_condition(job, "Progressing", True, "NodeTasksRunning", "node tasks are under way", job.created_at)]
    done = [_condition(job, "Progressing", False, "Finished", "every node task has ended", job.finished_at)]
    if job.state is State.SUCCESSFUL:
        done.append(_condition(job, "Complete", True, "Successful", _outcome(job), job.finished_at))
    else:
        done.append(_condition(job, "Failed", True, "Failed", job.reason, job.finished_at))
    return done


def _outcome(job: Job) -> str:
    return f"{job.tally.successful} of {job.tally.total} nodes hold every image"


def _condition(job: Job, kind: str, holds: bool, reason: str, message: str, since: float) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if holds else "False",
        "reason": reason,
        "message": message,
        "lastTransitionTime": _time(since),
        "observedGeneration": job.generation,
    }


def _time(moment: float) -> str:
    return _second(int(moment))


@lru_cache(maxsize=4096)
def _second(moment: int) -> str:
    # Hundreds of nodes report in the same second, and each of their times is shown twice, second after second.
    return rfc3339(datetime.fromtimestamp(moment, UTC))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 3] + "..."


def patch(status: dict[str, Any], known: Sequence[str] | set[str]) -> dict[str, Any]:
    """The merge patch that makes the status of an object with these keys into this one: a key that went is null."""
    return {**dict.fromkeys(known), **status}
