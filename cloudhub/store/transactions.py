"""What happens inside the queue's transactions. Each function is given the connection of a transaction that was begun
and will be ended by its caller, and adds what it changed to the `Commit`.

Nothing here knows of tasks, waiting or the event loop; `cloudhub.store.queue` is the way in.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, Final

from sqlalchemy import Connection, Executable

from cloudhub.store import statements as sql
from cloudhub.store.changes import TaskRow, change_task, settle
from cloudhub.store.records import Commit, Entry, ImageOutcome, Job, LiveTask, NewJob, Outcome, Removed, TaskChange
from cloudhub.taskmanager.lifecycle import OUTWARD, Refusal, Tally, TaskEvent, TaskState
from shared.jobs import Action, Event, State

CHUNK: Final = 1000
"""Rows of one statement."""

LEAST_ALIKE: Final = 20
"""Tasks that change in the same way get a statement of their own when it is worth one; the others share one."""

_TASK_STATES: Final = {state.value: state for state in TaskState}
"""A look into a dict takes a tenth of what the enum takes, and it is done for every row."""

Operation = Callable[[Connection, Commit], Any]
"""One write and its result."""
Item = Sequence[TaskChange] | Operation


class _LostRow(AssertionError):
    """A guarded update found another state than the same transaction had read: a defect, and nothing is committed."""


def perform(connection: Connection, items: Sequence[Item]) -> tuple[list[Any], Commit]:
    """All items in their order; changes that follow each other in one sweep."""
    commit = Commit()
    results: list[Any] = []
    for is_operation, run in groupby(items, key=callable):
        if is_operation:
            results += [item(connection, commit) for item in run if callable(item)]
        else:
            results += _apply_run(connection, commit, [item for item in run if not callable(item)])
    return results, commit


def execute(connection: Connection, statement: Executable, **parameters: object) -> int:
    return connection.execute(statement, parameters).rowcount


def load(connection: Connection, statement: Executable, **parameters: object) -> Any:
    """The one JSON value that the statement gives."""
    return json.loads(connection.execute(statement, parameters).scalar_one())


# --- Jobs -------------------------------------------------------------------------------------------------------------


def read_jobs(connection: Connection, statement: Executable, **parameters: object) -> list[Job]:
    return [_job(row) for row in load(connection, statement, **parameters)]


def _job(row: list[Any]) -> Job:
    uid, name, generation, concurrency, failure_tolerate, timeout_seconds, state, event, action, reason, stopped = row[
        :11
    ]
    created_at, changed_at, finished_at, version, published = row[18:]
    return Job(
        uid=uid,
        name=name,
        generation=generation,
        concurrency=concurrency,
        failure_tolerate=failure_tolerate,
        timeout_seconds=timeout_seconds,
        state=State(state),
        event=event and Event(event),
        action=action and Action(action),
        reason=reason,
        stopped=bool(stopped),
        tally=Tally(*row[11:18]),
        created_at=created_at,
        changed_at=changed_at,
        finished_at=finished_at,
        version=version,
        published=published,
    )


def _columns(job: Job) -> list[object]:
    """In the order of `statements.JOB_COLUMNS`."""
    tally = job.tally
    return [
        job.uid,
        job.name,
        job.generation,
        job.concurrency,
        job.failure_tolerate,
        job.timeout_seconds,
        job.state,
        job.event,
        job.action,
        job.reason,
        int(job.stopped),
        tally.pending,
        tally.waiting,
        tally.checking,
        tally.pulling,
        tally.successful,
        tally.failed,
        tally.not_started,
        job.created_at,
        job.changed_at,
        job.finished_at,
        job.version,
        job.published,
    ]


def _store_jobs(connection: Connection, commit: Commit, jobs: Sequence[Job]) -> None:
    if execute(connection, sql.UPDATE_JOBS, rows=json.dumps([_columns(job) for job in jobs])) != len(jobs):
        raise _LostRow("jobs")
    commit.jobs.update((job.uid, job) for job in jobs)


def _settle(connection: Connection, job: Job, at: float, decider: Event | None) -> None:
    not_begun = settle(job, at, decider)
    if not_begun:
        event, action = OUTWARD[TaskEvent.STOPPED]
        marked = execute(
            connection,
            sql.UPDATE_NOT_STARTED,
            of_job=job.uid,
            new_state=TaskState.NOT_STARTED,
            new_event=event,
            new_action=action,
            new_reason=f"not started: {job.reason}",
            at=at,
        )
        if marked != not_begun:
            raise _LostRow("node_tasks")


def admit(connection: Connection, commit: Commit, new: NewJob) -> Job:
    known = read_jobs(connection, sql.SELECT_JOBS, names=json.dumps([new.uid]))
    if known:
        return known[0]
    remove(connection, commit, [job.uid for job in read_jobs(connection, sql.SELECT_JOB_NAMED, job_name=new.name)])
    states = [TaskState.FAILED if task.refusal else TaskState.PENDING for task in new.tasks]
    job = _new_job(new, states)
    execute(connection, sql.INSERT_JOBS, rows=json.dumps([[*_columns(job), len(states), new.spec]]))
    event, action = Event.INIT, Action.FAILURE
    rows = [
        [task.node, position, state, event if task.refusal else None, action if task.refusal else None, task.refusal]
        for position, (task, state) in enumerate(zip(new.tasks, states, strict=True))
    ]
    for start in range(0, len(rows), CHUNK):
        chunk = json.dumps(rows[start : start + CHUNK])
        execute(connection, sql.INSERT_TASKS, job_uid=job.uid, rows=chunk, at=new.at)
    if not job.finished:
        _settle(connection, job, new.at, Event.INIT)
        _store_jobs(connection, commit, [job])
    commit.jobs[job.uid] = job
    return job


def _new_job(new: NewJob, states: Iterable[TaskState]) -> Job:
    return Job(
        uid=new.uid,
        name=new.name,
        generation=new.generation,
        concurrency=new.concurrency,
        failure_tolerate=new.failure_tolerate,
        timeout_seconds=new.timeout_seconds,
        state=State.FAILED if new.refusal else State.INIT,
        event=Event.INIT,
        action=Action.FAILURE if new.refusal else None,
        reason=new.refusal,
        stopped=bool(new.refusal),
        tally=Tally.of(states),
        created_at=new.at,
        changed_at=new.at,
        finished_at=new.at if new.refusal else None,
        version=1,
        published=0,
    )


def change_job(connection: Connection, commit: Commit, uid: str, change: Callable[[Job], None], at: float) -> None:
    """Changes the job's own columns, and does what follows from that. A job that is no more is left so."""
    for job in read_jobs(connection, sql.SELECT_JOBS, names=json.dumps([uid])):
        timeout = job.timeout_seconds
        change(job)
        if job.timeout_seconds != timeout:
            execute(connection, sql.MOVE_DEADLINES, of_job=uid, seconds=job.timeout_seconds - timeout)
        if job.finished:
            job.version += 1
        else:
            # Lowered failureTolerate may be exceeded already; the failures that did it may be of any kind.
            _settle(connection, job, at, None)
        _store_jobs(connection, commit, [job])


def remove(connection: Connection, commit: Commit, uids: Sequence[str]) -> None:
    names = json.dumps(uids)
    gone = read_jobs(connection, sql.SELECT_JOBS, names=names)
    if not gone:
        return
    in_flight = live_tasks(load(connection, sql.SELECT_IN_FLIGHT, names=names))
    execute(connection, sql.DELETE_JOBS, names=names)
    for job in gone:
        commit.jobs.pop(job.uid, None)
        commit.removed.append(Removed(job.uid, job.name, [task for task in in_flight if task.job_uid == job.uid]))


# --- Node tasks -------------------------------------------------------------------------------------------------------


def live_tasks(rows: Iterable[list[Any]]) -> list[LiveTask]:
    return [LiveTask(uid, node, _TASK_STATES[state], *others) for uid, node, state, *others in rows]


def entries(connection: Connection, job: Job, most: int) -> list[Entry]:
    if job.tally.total <= most:
        return _entries(load(connection, sql.SELECT_ALL_ENTRIES, of_job=job.uid, most=most))
    found: list[Entry] = []
    for state in (
        TaskState.FAILED,
        TaskState.PULLING,
        TaskState.CHECKING,
        TaskState.WAITING,
        TaskState.PENDING,
        TaskState.NOT_STARTED,
        TaskState.SUCCESSFUL,
    ):
        if len(found) < most:
            left = most - len(found)
            found += _entries(load(connection, sql.SELECT_ENTRIES, of_job=job.uid, of_state=state, most=left))
    return found


def _entries(rows: Iterable[list[Any]]) -> list[Entry]:
    return [
        Entry(node, _TASK_STATES[state], event, action, reason, _images(images), changed_at, checked_at)
        for node, state, event, action, reason, images, changed_at, checked_at in rows
    ]


def _images(text: str | None) -> list[ImageOutcome]:
    return [(image, ok, why) for image, ok, why in json.loads(text)] if text else []


def _apply_run(connection: Connection, commit: Commit, items: Sequence[Sequence[TaskChange]]) -> list[list[Outcome]]:
    outcomes = iter(_apply(connection, commit, [change for item in items for change in item]))
    return [list(islice(outcomes, len(item))) for item in items]


def _apply(connection: Connection, commit: Commit, changes: Sequence[TaskChange]) -> list[Outcome]:
    uids = list({change.job_uid: None for change in changes})
    jobs = {job.uid: job for job in read_jobs(connection, sql.SELECT_JOBS, names=json.dumps(uids))}
    read = _read_tasks(connection, changes)
    rows = {key: _row(was) for key, was in read.items()}
    outcomes: list[Outcome] = []
    done: list[Outcome] = []
    # In the order of the changes.
    changed: dict[tuple[str, str], None] = {}
    for change in changes:
        key = change.job_uid, change.node
        row = rows.get(key)
        if row is None:
            outcomes.append(Outcome(change, refusal=Refusal.UNKNOWN_TASK))
            continue
        outcome = change_task(row, jobs[change.job_uid], change)
        outcomes.append(outcome)
        if outcome.refusal is None:
            done.append(outcome)
            changed[key] = None
    if done:
        _write_tasks(connection, [(read[key], rows[key]) for key in changed])
        _follow_up(connection, commit, jobs, done)
    commit.outcomes += outcomes
    return outcomes


_Read = list[Any]
"""A task as it was read: uid, node, state, attempt, wait_deadline, deadline, images, checked_at."""


def _read_tasks(connection: Connection, changes: Sequence[TaskChange]) -> dict[tuple[str, str], _Read]:
    keys = list({(change.job_uid, change.node): None for change in changes})
    return {(was[0], was[1]): was for was in load(connection, sql.SELECT_TASKS, rows=json.dumps(keys))}


def _row(was: _Read) -> TaskRow:
    uid, node, state, attempt, wait_deadline, deadline, images, checked_at = was
    return TaskRow(
        uid, node, _TASK_STATES[state], attempt, wait_deadline, deadline, images=images, checked_at=checked_at
    )


def _write_tasks(connection: Connection, changed: Sequence[tuple[_Read, TaskRow]]) -> None:
    alike: dict[_Likeness, list[tuple[_Read, TaskRow]]] = {}
    for was, row in changed:
        alike.setdefault(_likeness(was, row), []).append((was, row))
    single: list[tuple[_Read, TaskRow]] = []
    written = 0
    for likeness, same in alike.items():
        if len(same) < LEAST_ALIKE:
            single += same
        else:
            written += _write_alike(connection, likeness, [row.node for _, row in same])
    if single:
        written += _write_each(connection, single)
    if written != len(changed):
        raise _LostRow("node_tasks")


_Likeness = tuple[str, str, int, tuple[object, ...], tuple[str, ...], tuple[object, ...]]
"""The job; state and attempt that were decided upon; the values of `statements.TASK_FIXED`; which other columns change,
and to what."""


def _likeness(was: _Read, row: TaskRow) -> _Likeness:
    fixed = row.state, row.attempt, row.event, row.action, row.reason, row.changed_at
    others: tuple[str, ...] = ()
    values: tuple[object, ...] = ()
    if row.wait_deadline != was[4]:
        others, values = ("wait_deadline",), (row.wait_deadline,)
    if row.deadline != was[5]:
        others, values = (*others, "deadline"), (*values, row.deadline)
    if row.images != was[6]:
        others, values = (*others, "images"), (*values, row.images)
    if row.checked_at != was[7]:
        others, values = (*others, "checked_at"), (*values, row.checked_at)
    return row.job_uid, was[2], was[3], fixed, others, values


def _write_alike(connection: Connection, likeness: _Likeness, nodes: Sequence[str]) -> int:
    uid, state, attempt, fixed, others, values = likeness
    new = {f"new_{name}": value for name, value in zip((*sql.TASK_FIXED, *others), (*fixed, *values), strict=True)}
    return execute(
        connection,
        sql.update_alike(others),
        of_job=uid,
        names=json.dumps(nodes),
        old_state=state,
        old_attempt=attempt,
        **new,
    )


def _write_each(connection: Connection, changed: Sequence[tuple[_Read, TaskRow]]) -> int:
    rows = [
        [
            row.job_uid,
            row.node,
            was[2],
            was[3],
            row.state,
            row.attempt,
            row.wait_deadline,
            row.deadline,
            row.event,
            row.action,
            row.reason,
            row.images,
            row.changed_at,
            row.checked_at,
        ]
        for was, row in changed
    ]
    return execute(connection, sql.UPDATE_TASKS, rows=json.dumps(rows))


def _follow_up(connection: Connection, commit: Commit, jobs: Mapping[str, Job], done: Sequence[Outcome]) -> None:
    """What the counts decide: stop, end."""
    last: dict[str, float] = {}
    deciders: dict[str, Event | None] = {}
    for outcome in done:
        uid = outcome.change.job_uid
        last[uid] = outcome.change.at
        if outcome.after is TaskState.FAILED:
            deciders[uid] = OUTWARD[outcome.change.event][0]
    for uid, at in last.items():
        _settle(connection, jobs[uid], at, deciders.get(uid))
    _store_jobs(connection, commit, [jobs[uid] for uid in last])
