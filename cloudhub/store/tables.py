"""The queue's tables: jobs, and one row for each node of each job.

What must always hold stands here as constraints, so that no version of the code above can break it unseen: states are
those of `cloudhub.taskmanager.lifecycle`; a job's counts add up to its total; a node has one task a job; a task in
flight has a deadline and a finished one has none. Times are seconds since the epoch. No secret is ever in a column.

``cloudhub/store/migrations/queue`` makes these tables; a test holds the two together.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

JOB_STATES: Final = "'Init', 'Checking', 'Pulling', 'Successful', 'Failed'"
TASK_STATES: Final = "'Pending', 'Waiting', 'Checking', 'Pulling', 'Successful', 'Failed', 'NotStarted'"
EVENTS: Final = "'Init', 'Check', 'Pull', 'TimeOut'"
ACTIONS: Final = "'Success', 'Failure'"

jobs = Table(
    "jobs",
    metadata,
    Column("uid", Text, primary_key=True),
    # The API has one object of a name; what an earlier one left goes in the transaction that admits the later.
    Column("name", Text, nullable=False),
    Column("generation", BigInteger, nullable=False),
    # The validated spec as JSON text; the three fields that may be edited have columns of their own.
    # Of a job that was refused there is none.
    Column("spec", Text, nullable=False, info={"json": "object", "may_be_empty": True}),
    Column("concurrency", Integer, nullable=False),
    Column("failure_tolerate", Text, nullable=False, info={"decimal": True}),
    Column("timeout_seconds", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("event", Text),
    Column("action", Text),
    Column("reason", Text, nullable=False, server_default=text("''")),
    # Given up: nothing more of it is begun.
    Column("stopped", Boolean, nullable=False, server_default=text("0")),
    Column("pending", Integer, nullable=False, server_default="0"),
    Column("waiting", Integer, nullable=False, server_default="0"),
    Column("checking", Integer, nullable=False, server_default="0"),
    Column("pulling", Integer, nullable=False, server_default="0"),
    Column("successful", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("not_started", Integer, nullable=False, server_default="0"),
    Column("total", Integer, nullable=False, server_default="0"),
    Column("created_at", Double, nullable=False),
    Column("changed_at", Double, nullable=False),
    Column("finished_at", Double),
    # Counts what the status shows; the status was written as of `published`.
    Column("version", BigInteger, nullable=False, server_default="1"),
    Column("published", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("name"),
    CheckConstraint(f"state IN ({JOB_STATES})", name="state"),
    CheckConstraint(f"event IN ({EVENTS})", name="event"),
    CheckConstraint(f"action IN ({ACTIONS})", name="action"),
    CheckConstraint("concurrency > 0 AND timeout_seconds > 0", name="limits"),
    CheckConstraint(
        "pending >= 0 AND waiting >= 0 AND checking >= 0 AND pulling >= 0 "
        "AND successful >= 0 AND failed >= 0 AND not_started >= 0 "
        "AND pending + waiting + checking + pulling + successful + failed + not_started = total",
        name="counts_add_up",
    ),
    CheckConstraint(
        "(finished_at IS NOT NULL) = (state IN ('Successful', 'Failed')) "
        "AND (finished_at IS NULL OR pending + waiting + checking + pulling = 0)",
        name="finished_when_all_are",
    ),
    CheckConstraint("published <= version", name="published"),
    info={
        "odd": {
            "a job's counts are not those of its tasks": """
                SELECT 1 FROM jobs LEFT JOIN (
                    SELECT job_uid, count(*) AS total,
                        sum(state = 'Pending') AS pending, sum(state = 'Waiting') AS waiting,
                        sum(state = 'Checking') AS checking, sum(state = 'Pulling') AS pulling,
                        sum(state = 'Successful') AS successful, sum(state = 'Failed') AS failed
                    FROM node_tasks GROUP BY job_uid
                ) AS found ON found.job_uid = jobs.uid
                WHERE jobs.total <> coalesce(found.total, 0) OR found.total > 0 AND (
                    jobs.pending <> found.pending OR jobs.waiting <> found.waiting
                    OR jobs.checking <> found.checking OR jobs.pulling <> found.pulling
                    OR jobs.successful <> found.successful OR jobs.failed <> found.failed
                )
                LIMIT 1
            """,
        }
    },
)
Index("ix_jobs_unfinished", jobs.c.created_at, sqlite_where=text("finished_at IS NULL"))

node_tasks = Table(
    "node_tasks",
    metadata,
    Column("job_uid", Text, ForeignKey("jobs.uid", ondelete="CASCADE"), primary_key=True),
    Column("node", Text, primary_key=True),
    # The order of the job's nodes: turns are taken by it, and the status is in it.
    Column("position", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("event", Text),
    Column("action", Text),
    Column("reason", Text, nullable=False, server_default=text("''")),
    # JSON text: [[image, ok, reason], ...]; images of the job only.
    Column("images", Text, info={"json": "array", "width": 3}),
    # The end of the wait for a node that was not connected at its first turn; kept over later turns.
    Column("wait_deadline", Double),
    # When this task is late in its present state.
    Column("deadline", Double),
    Column("changed_at", Double, nullable=False),
    # When the checks of this attempt succeeded; the pull's report overwrites all else that was said of them.
    Column("checked_at", Double),
    UniqueConstraint("job_uid", "position"),
    CheckConstraint(f"state IN ({TASK_STATES})", name="state"),
    CheckConstraint(f"event IN ({EVENTS})", name="event"),
    CheckConstraint(f"action IN ({ACTIONS})", name="action"),
    CheckConstraint("position >= 0 AND attempt >= 0", name="numbers"),
    CheckConstraint("state NOT IN ('Checking', 'Pulling') OR (deadline IS NOT NULL AND attempt > 0)", name="in_flight"),
    CheckConstraint("state IN ('Waiting', 'Checking', 'Pulling') OR deadline IS NULL", name="deadline"),
)
Index("ix_node_tasks_turns", node_tasks.c.job_uid, node_tasks.c.state, node_tasks.c.position)
Index("ix_node_tasks_deadlines", node_tasks.c.deadline, sqlite_where=text("deadline IS NOT NULL"))
Index(
    "ix_node_tasks_live_of_node",
    node_tasks.c.node,
    # The names stand in the statement, not as parameters: SQLite uses a partial index only when it can see them.
    sqlite_where=text("state IN ('Waiting', 'Checking', 'Pulling')"),
)
