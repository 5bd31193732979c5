"""The queue's statements, each for a whole batch at once.

A batch goes in as one parameter, JSON text of a list of rows, and comes out as one value of the same kind. The reason
is the event loop's thread: the driver gives the interpreter's lock away at every row that it binds or fetches, and
under load it waits milliseconds to get it back; thousands of rows a second are only possible when a batch is one step
of the database. It also spares the work of binding a dozen values a row.

Of the rows of a batch most change in the same way, for all nodes of a job do the same: then the new values are
parameters and the JSON text has the nodes' names alone (`update_alike`), which takes half of what `UPDATE_TASKS` does.

Only `_rows`, `_at`, `_list` and `_unsearched` are SQLite's; PostgreSQL has the first three under other names and needs
no fourth.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    TableValuedAlias,
    Text,
    Update,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    select,
    update,
)
from sqlalchemy.sql.selectable import Select

from cloudhub.store.tables import jobs, node_tasks


def _rows(parameter: str) -> TableValuedAlias:
    """The parameter's rows as a table of one column, each a JSON list."""
    return func.json_each(bindparam(parameter, type_=Text)).table_valued("value", "key", name="given")


def _at(rows: TableValuedAlias, place: int) -> ColumnElement[Any]:
    """One value of each row, of its own type; JSON's null is NULL."""
    return rows.c.value.op("->>")(literal_column(str(place)))


def _list(*columns: ColumnElement[Any]) -> ColumnElement[Any]:
    """All selected rows as one JSON text."""
    return func.json_group_array(func.json_array(*columns))


def _unsearched(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The column as a condition that is looked at, but by which no rows are searched for: it says little, and the
    planner does not know that."""
    return literal_column(f"+{column}")


# Without `spec`, which may be hundreds of kilobytes and is of no use to a transition.
JOB_COLUMNS: Final = (
    "uid",
    "name",
    "generation",
    "concurrency",
    "failure_tolerate",
    "timeout_seconds",
    "state",
    "event",
    "action",
    "reason",
    "stopped",
    "pending",
    "waiting",
    "checking",
    "pulling",
    "successful",
    "failed",
    "not_started",
    "created_at",
    "changed_at",
    "finished_at",
    "version",
    "published",
)
_JOB_FIXED: Final = ("uid", "name", "created_at", "published")

_given = _rows("rows")
_names = _rows("names")
_job_columns = [jobs.c[name] for name in JOB_COLUMNS]


def _select_jobs(*conditions: ColumnElement[bool]) -> Select[tuple[str]]:
    return select(_list(*_job_columns)).where(*conditions)


SELECT_JOBS: Final = _select_jobs(jobs.c.uid.in_(select(_names.c.value)))
SELECT_JOB_NAMED: Final = _select_jobs(jobs.c.name == bindparam("job_name"))
SELECT_UNFINISHED: Final = _select_jobs(jobs.c.finished_at.is_(None))
SELECT_UNPUBLISHED: Final = _select_jobs(jobs.c.published < jobs.c.version)
SELECT_SPECS: Final = select(_list(jobs.c.uid, jobs.c.spec)).where(jobs.c.uid.in_(select(_names.c.value)))
SELECT_JOB_NAMES: Final = select(_list(jobs.c.uid, jobs.c.name))

INSERT_JOBS: Final = insert(jobs).from_select(
    [*JOB_COLUMNS, "total", "spec"],
    select(
        *(_at(_given, place) for place in range(len(JOB_COLUMNS) + 2)),
    ).select_from(_given),
)

UPDATE_JOBS: Final = (
    update(jobs)
    .values({name: _at(_given, place) for place, name in enumerate(JOB_COLUMNS) if name not in _JOB_FIXED})
    .where(jobs.c.uid == _at(_given, 0))
)

UPDATE_PUBLISHED: Final = (
    update(jobs)
    .values(published=_at(_given, 1))
    # The job may have been removed, and made anew, since its status was read.
    .where(and_(jobs.c.uid == _at(_given, 0), jobs.c.published < _at(_given, 1), jobs.c.version >= _at(_given, 1)))
)

DELETE_JOBS: Final = delete(jobs).where(jobs.c.uid.in_(select(_names.c.value)))

INSERT_TASKS: Final = insert(node_tasks).from_select(
    ["job_uid", "node", "position", "state", "event", "action", "reason", "changed_at"],
    select(
        bindparam("job_uid", type_=Text),
        _at(_given, 0),
        _at(_given, 1),
        _at(_given, 2),
        _at(_given, 3),
        _at(_given, 4),
        _at(_given, 5),
        bindparam("at"),
    ).select_from(_given),
)

SELECT_TASKS: Final = select(
    _list(
        node_tasks.c.job_uid,
        node_tasks.c.node,
        node_tasks.c.state,
        node_tasks.c.attempt,
        node_tasks.c.wait_deadline,
        node_tasks.c.deadline,
        # NULL of nearly all that are in flight.
        node_tasks.c.images,
        node_tasks.c.checked_at,
    )
).select_from(
    _given.join(
        node_tasks,
        and_(node_tasks.c.job_uid == _at(_given, 0), node_tasks.c.node == _at(_given, 1)),
    )
)

UPDATE_TASKS: Final = (
    update(node_tasks)
    .values(
        state=_at(_given, 4),
        attempt=_at(_given, 5),
        wait_deadline=_at(_given, 6),
        deadline=_at(_given, 7),
        event=_at(_given, 8),
        action=_at(_given, 9),
        reason=_at(_given, 10),
        images=_at(_given, 11),
        changed_at=_at(_given, 12),
        checked_at=_at(_given, 13),
    )
    .where(
        and_(
            node_tasks.c.job_uid == _at(_given, 0),
            node_tasks.c.node == _at(_given, 1),
            # The guard: only from the state and the attempt that the change was decided upon.
            node_tasks.c.state == _at(_given, 2),
            node_tasks.c.attempt == _at(_given, 3),
        )
    )
)

TASK_FIXED: Final = ("state", "attempt", "event", "action", "reason", "changed_at")
"""Columns that every change of a task sets."""


@cache
def update_alike(others: tuple[str, ...]) -> Update:
    """Sets `TASK_FIXED` and these other columns of many nodes of one job, which all had the same state and attempt;
    with the same guard as above. A column that is not set costs no write of its index."""
    return (
        update(node_tasks)
        .values({name: bindparam(f"new_{name}") for name in (*TASK_FIXED, *others)})
        .where(
            and_(
                node_tasks.c.job_uid == bindparam("of_job", type_=Text),
                node_tasks.c.node.in_(select(_names.c.value)),
                _unsearched(node_tasks.c.state) == bindparam("old_state", type_=Text),
                _unsearched(node_tasks.c.attempt) == bindparam("old_attempt"),
            )
        )
    )


UPDATE_NOT_STARTED: Final = (
    update(node_tasks)
    .values(
        state=bindparam("new_state"),
        event=bindparam("new_event"),
        action=bindparam("new_action"),
        reason=bindparam("new_reason"),
        deadline=None,
        changed_at=bindparam("at"),
    )
    .where(
        and_(
            node_tasks.c.job_uid == bindparam("of_job", type_=Text),
            node_tasks.c.state.in_([literal_column("'Pending'"), literal_column("'Waiting'")]),
        )
    )
)

MOVE_DEADLINES: Final = (
    update(node_tasks)
    .values(
        deadline=node_tasks.c.deadline + bindparam("seconds"),
        wait_deadline=node_tasks.c.wait_deadline + bindparam("seconds"),
    )
    .where(
        and_(
            node_tasks.c.job_uid == bindparam("of_job", type_=Text),
            node_tasks.c.state.in_(
                [literal_column(f"'{state}'") for state in ("Pending", "Waiting", "Checking", "Pulling")]
            ),
        )
    )
)

_live = (
    node_tasks.c.job_uid,
    node_tasks.c.node,
    node_tasks.c.state,
    node_tasks.c.attempt,
    node_tasks.c.deadline,
    node_tasks.c.changed_at,
    node_tasks.c.images,
)
# As in the partial index, which SQLite uses only when it sees the same words.
_IS_LIVE: Final[ColumnElement[bool]] = literal_column("node_tasks.state IN ('Waiting', 'Checking', 'Pulling')")
_IS_IN_FLIGHT: Final[ColumnElement[bool]] = literal_column("node_tasks.state IN ('Checking', 'Pulling')")

SELECT_LIVE_OF_NODES: Final = select(_list(*_live)).where(node_tasks.c.node.in_(select(_names.c.value)), _IS_LIVE)
SELECT_IN_FLIGHT: Final = select(_list(*_live)).where(node_tasks.c.job_uid.in_(select(_names.c.value)), _IS_IN_FLIGHT)
SELECT_PARKED: Final = select(_list(*_live)).where(
    literal_column("node_tasks.state = 'Waiting'"), node_tasks.c.deadline.is_(None)
)


def _limited(columns: tuple[ColumnElement[Any], ...], inner: Select[Any]) -> Select[Any]:
    found = inner.limit(bindparam("most")).subquery()
    return select(_list(*(found.c[column.name] for column in columns)))


SELECT_LATE: Final = _limited(
    _live,
    select(*_live)
    .where(node_tasks.c.deadline.is_not(None), node_tasks.c.deadline <= bindparam("now"))
    .order_by(node_tasks.c.deadline),
)

_next = (
    select(node_tasks.c.node)
    .where(node_tasks.c.job_uid == _names.c.value, node_tasks.c.state == literal_column("'Pending'"))
    .order_by(node_tasks.c.position)
    .limit(bindparam("most"))
    .correlate(_names)
    .subquery("next")
)
SELECT_PENDING: Final = select(
    _list(_names.c.value, select(func.json_group_array(_next.c.node)).correlate(_names).scalar_subquery())
).select_from(_names)

_entry = (
    node_tasks.c.node,
    node_tasks.c.state,
    node_tasks.c.event,
    node_tasks.c.action,
    node_tasks.c.reason,
    node_tasks.c.images,
    node_tasks.c.changed_at,
    node_tasks.c.checked_at,
)
SELECT_ENTRIES: Final = _limited(
    _entry,
    select(*_entry)
    .where(node_tasks.c.job_uid == bindparam("of_job"), node_tasks.c.state == bindparam("of_state"))
    .order_by(node_tasks.c.position),
)
SELECT_ALL_ENTRIES: Final = _limited(
    _entry, select(*_entry).where(node_tasks.c.job_uid == bindparam("of_job")).order_by(node_tasks.c.position)
)

_TALLY: Final = ("pending", "waiting", "checking", "pulling", "successful", "failed", "not_started")
SELECT_TASK_COUNTS: Final = select(func.json_array(*(func.coalesce(func.sum(jobs.c[name]), 0) for name in _TALLY)))
SELECT_JOB_COUNTS: Final = select(func.json_group_object(literal_column("state"), literal_column("jobs"))).select_from(
    select(jobs.c.state.label("state"), func.count().label("jobs")).group_by(jobs.c.state).subquery("by_state")
)
