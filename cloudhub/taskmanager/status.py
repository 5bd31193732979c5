"""A job's status as the API shows it: a projection of the job's rows. Pure.

The keys and values of KubeEdge's guide, then ours (`shared.jobs.JobStatus` has both). An object of the API must stay
far below etcd's 1.5 MB, and the status is written often, so entries are bounded twice: in number (the caller's query)
and in bytes (`MAX_ENTRIES_BYTES`); the counts are always complete. Times are of the rows, never of the writing, so
that the same rows give the same status.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from cloudhub.store.records import Entry, Job
from cloudhub.taskmanager.lifecycle import API_STATE
from shared.jobs import Counts, State
from shared.wire import rfc3339

MAX_ENTRIES_BYTES: Final = 320_000
MAX_REASON: Final = 512


def project(job: Job, entries: Iterable[Entry]) -> dict[str, Any]:
    """What `JobStatus.dump` would give, made without the models: it is done each second for hundreds of entries."""
    status: dict[str, Any] = {"state": str(job.state)}
    if job.event is not None:
        status["event"] = str(job.event)
    if job.action is not None:
        status["action"] = str(job.action)
    if job.reason:
        status["reason"] = job.reason
    status["time"] = _time(job.changed_at)
    status["status"] = _bounded(map(_entry, entries))
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


def _entry(entry: Entry) -> dict[str, Any]:
    node: dict[str, Any] = {"nodeName": entry.node, "state": str(API_STATE[entry.state])}
    if entry.event is not None:
        node["event"] = entry.event
    if entry.action is not None:
        node["action"] = entry.action
    if entry.reason:
        node["reason"] = _cut(entry.reason)
    if entry.event is not None or entry.reason:
        node["time"] = _time(entry.changed_at)
    shown: dict[str, Any] = {"nodeStatus": node}
    if entry.images:
        shown["imageStatus"] = [_image(*image) for image in entry.images]
    return shown


def _image(image: str, ok: bool, reason: str) -> dict[str, str]:
    shown = {"image": image, "state": str(State.SUCCESSFUL if ok else State.FAILED)}
    if reason:
        shown["reason"] = _cut(reason)
    return shown


def _bounded(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many as fit, from the first."""
    kept: list[dict[str, Any]] = []
    size = 0
    for entry in entries:
        # As the API server counts: UTF-8, where a text of another script takes three bytes a character.
        size += len(json.dumps(entry, separators=(",", ":"), ensure_ascii=False).encode()) + 1
        if size > MAX_ENTRIES_BYTES:
            break
        kept.append(entry)
    return kept


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
    return rfc3339(datetime.fromtimestamp(moment, UTC))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 3] + "..."


def patch(status: dict[str, Any], known: Sequence[str] | set[str]) -> dict[str, Any]:
    """The merge patch that makes the status of an object with these keys into this one: a key that went is null."""
    return {**dict.fromkeys(known), **status}
