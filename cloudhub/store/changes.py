"""What a change does to a task's row and to its job's. Pure: rows in, rows out; the transaction around it is elsewhere.

`cloudhub.taskmanager.lifecycle` says which state follows; here it is said what else goes with a state: deadlines,
attempts, reasons, counts, the end of the job.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from cloudhub.store.records import ImageOutcome, Job, Outcome, TaskChange
from cloudhub.taskmanager.lifecycle import (
    DISPATCHES,
    JOB_OUTWARD,
    OUTWARD,
    Refusal,
    TaskEvent,
    TaskState,
    Verdict,
    advance,
    failure_text,
    judge,
    progress,
    too_many_failed,
)
from cloudhub.taskmanager.parts import failures, in_order, joined
from shared.jobs import Action, Event, State

MAX_REASON: Final = 1024
"""Longer ones are cut: thousands of them must fit one object of the API."""


@dataclass(slots=True)
class TaskRow:
    """The columns of ``node_tasks`` that a change reads or writes."""

    job_uid: str
    node: str
    state: TaskState
    attempt: int
    wait_deadline: float | None
    deadline: float | None
    event: Event | None = None
    action: Action | None = None
    reason: str = ""
    images: str | None = None
    changed_at: float = 0.0
    checked_at: float | None = None


def change_task(row: TaskRow, job: Job, change: TaskChange) -> Outcome:
    """Changes the row, and the job's tally with it, if the lifecycle has this event for it."""
    before = row.state
    if change.wanted:
        change = _with_earlier(row, change)
    after = _next_state(row, job, change)
    if isinstance(after, Refusal):
        return Outcome(change, before, before, row.attempt, row.deadline, after)
    row.state = after
    row.event, row.action = OUTWARD[change.event]
    row.reason = change.reason[:MAX_REASON]
    if change.images:
        row.images = _images(tuple(change.images))
    row.changed_at = change.at
    _set_times(row, change)
    job.tally.move(before, after)
    return Outcome(change, before, after, row.attempt, row.deadline)


def _with_earlier(row: TaskRow, change: TaskChange) -> TaskChange:
    """What the report of some images comes to, with what was reported before."""
    earlier = [(image, ok, why) for image, ok, why in json.loads(row.images)] if row.images else []
    images = in_order(joined(earlier, change.images), change.wanted)
    if len(images) == len(earlier):
        # A repetition. Without images, `_next_state` refuses it.
        return replace(change, event=TaskEvent.PART_PULLED, images=())
    if len(images) < len(change.wanted):
        return replace(change, event=TaskEvent.PART_PULLED, images=images, reason="")
    event = TaskEvent.PULL_SUCCEEDED if all(ok for _, ok, _ in images) else TaskEvent.PULL_FAILED
    # The words of the last part alone are not the whole story.
    reason = change.reason if not earlier else failures(images)
    return replace(change, event=event, images=images, reason=reason)


@lru_cache(maxsize=8)
def _images(outcomes: Sequence[ImageOutcome]) -> str:
    # Hundreds of nodes say the same of the same images.
    return json.dumps([[image, ok, why[:MAX_REASON]] for image, ok, why in outcomes], separators=(",", ":"))


def _next_state(row: TaskRow, job: Job, change: TaskChange) -> TaskState | Refusal:
    if change.attempt is not None and change.attempt != row.attempt:
        return Refusal.OTHER_ATTEMPT
    if change.event is TaskEvent.TIMED_OUT and (row.deadline is None or row.deadline > change.at):
        # Between the search for late tasks and this transaction it went on, under another deadline.
        return Refusal.FINISHED if row.state.finished else Refusal.NO_EFFECT
    if change.event is TaskEvent.PART_PULLED and not change.images:
        return Refusal.FINISHED if row.state.finished else Refusal.NO_EFFECT
    if change.event in DISPATCHES and not _may_begin(job):
        # Between the turn and this transaction the job was edited, or one more of its tasks failed.
        return Refusal.NO_ROOM
    return advance(row.state, change.event)


def _may_begin(job: Job) -> bool:
    tally = job.tally
    return (
        not job.stopped
        and tally.in_flight < job.concurrency
        and not too_many_failed(tally.failed, tally.total, job.failure_tolerate)
    )


def _set_times(row: TaskRow, change: TaskChange) -> None:
    match change.event:
        case event if event in DISPATCHES:
            row.attempt += 1
            row.deadline = change.deadline
            row.checked_at = None
        case TaskEvent.POSTPONED if change.deadline is not None:
            # The wait counts from the first turn: a node that comes and goes does not begin it anew each time.
            row.wait_deadline = row.deadline = row.wait_deadline or change.deadline
        case TaskEvent.CHECK_SUCCEEDED:
            row.checked_at = change.at
        case TaskEvent.PART_PULLED:
            pass
        case _:
            row.deadline = None


def settle(job: Job, at: float, decider: Event | None) -> int:
    """Brings the job up to date with its tally and says how many tasks must now be marked as not started; the tally
    has them so already. ``decider`` is the event of the last failure."""
    if job.finished:
        return 0
    tally = job.tally
    if not job.stopped and too_many_failed(tally.failed, tally.total, job.failure_tolerate):
        job.stopped = True
        job.event, job.action = decider or Event.PULL, Action.FAILURE
    if job.stopped:
        job.reason = _stop_reason(job)
    not_begun = tally.not_begun if job.stopped else 0
    if not_begun:
        tally.not_started += not_begun
        tally.pending = tally.waiting = 0
    verdict = judge(tally, stopped=job.stopped)
    _finish(job, verdict, at)
    job.changed_at = at
    job.version += 1
    return not_begun


def _stop_reason(job: Job) -> str:
    """A job that was stopped for another reason than its failures keeps that one."""
    tally = job.tally
    if too_many_failed(tally.failed, tally.total, job.failure_tolerate):
        return failure_text(tally.failed, tally.total, job.failure_tolerate)
    return job.reason


def _finish(job: Job, verdict: Verdict, at: float) -> None:
    match verdict:
        case Verdict.SUCCESSFUL:
            job.state, job.finished_at = State.SUCCESSFUL, at
            job.event, job.action = JOB_OUTWARD[State.SUCCESSFUL]
            failed, total = job.tally.failed, job.tally.total
            if failed:
                job.reason = f"{failed} of {total} nodes failed, not more than failureTolerate {job.failure_tolerate}"
        case Verdict.FAILED:
            job.state, job.finished_at = State.FAILED, at
        case _:
            job.state = progress(job.state, job.tally)
            if not job.stopped:
                job.event, job.action = JOB_OUTWARD[job.state]
