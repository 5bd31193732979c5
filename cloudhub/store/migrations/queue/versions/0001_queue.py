"""Jobs and node tasks.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_jobs()
    _create_node_tasks()


def downgrade() -> None:
    op.drop_table("node_tasks")
    op.drop_table("jobs")


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("uid", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("concurrency", sa.Integer, nullable=False),
        sa.Column("failure_tolerate", sa.Text, nullable=False),
        sa.Column("timeout_seconds", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("event", sa.Text),
        sa.Column("action", sa.Text),
        sa.Column("reason", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("stopped", sa.Boolean, nullable=False, server_default=sa.text("0")),
        *(
            sa.Column(name, sa.Integer, nullable=False, server_default="0")
            for name in (
                "pending",
                "waiting",
                "checking",
                "pulling",
                "successful",
                "failed",
                "not_started",
                "total",
            )
        ),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("changed_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="1"),
        sa.Column("published", sa.BigInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("uid", name=op.f("pk_jobs")),
        sa.UniqueConstraint("name", name=op.f("uq_jobs_name")),
        sa.CheckConstraint(
            "state IN ('Init', 'Checking', 'Pulling', 'Successful', 'Failed')", name=op.f("ck_jobs_state")
        ),
        sa.CheckConstraint("event IN ('Init', 'Check', 'Pull', 'TimeOut')", name=op.f("ck_jobs_event")),
        sa.CheckConstraint("action IN ('Success', 'Failure')", name=op.f("ck_jobs_action")),
        sa.CheckConstraint("concurrency > 0 AND timeout_seconds > 0", name=op.f("ck_jobs_limits")),
        sa.CheckConstraint(
            "pending >= 0 AND waiting >= 0 AND checking >= 0 AND pulling >= 0 "
            "AND successful >= 0 AND failed >= 0 AND not_started >= 0 "
            "AND pending + waiting + checking + pulling + successful + failed + not_started = total",
            name=op.f("ck_jobs_counts_add_up"),
        ),
        sa.CheckConstraint(
            "(finished_at IS NOT NULL) = (state IN ('Successful', 'Failed')) "
            "AND (finished_at IS NULL OR pending + waiting + checking + pulling = 0)",
            name=op.f("ck_jobs_finished_when_all_are"),
        ),
        sa.CheckConstraint("published <= version", name=op.f("ck_jobs_published")),
    )
    op.create_index("ix_jobs_unfinished", "jobs", ["created_at"], sqlite_where=sa.text("finished_at IS NULL"))


def _create_node_tasks() -> None:
    op.create_table(
        "node_tasks",
        sa.Column("job_uid", sa.Text, nullable=False),
        sa.Column("node", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("event", sa.Text),
        sa.Column("action", sa.Text),
        sa.Column("reason", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("images", sa.Text),
        sa.Column("wait_deadline", sa.Double),
        sa.Column("deadline", sa.Double),
        sa.Column("changed_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("job_uid", "node", name=op.f("pk_node_tasks")),
        sa.ForeignKeyConstraint(["job_uid"], ["jobs.uid"], name=op.f("fk_node_tasks_job_uid"), ondelete="CASCADE"),
        sa.UniqueConstraint("job_uid", "position", name=op.f("uq_node_tasks_job_uid_position")),
        sa.CheckConstraint(
            "state IN ('Pending', 'Waiting', 'Checking', 'Pulling', 'Successful', 'Failed', 'NotStarted')",
            name=op.f("ck_node_tasks_state"),
        ),
        sa.CheckConstraint("event IN ('Init', 'Check', 'Pull', 'TimeOut')", name=op.f("ck_node_tasks_event")),
        sa.CheckConstraint("action IN ('Success', 'Failure')", name=op.f("ck_node_tasks_action")),
        sa.CheckConstraint("position >= 0 AND attempt >= 0", name=op.f("ck_node_tasks_numbers")),
        sa.CheckConstraint(
            "state NOT IN ('Checking', 'Pulling') OR (deadline IS NOT NULL AND attempt > 0)",
            name=op.f("ck_node_tasks_in_flight"),
        ),
        sa.CheckConstraint(
            "state IN ('Waiting', 'Checking', 'Pulling') OR deadline IS NULL", name=op.f("ck_node_tasks_deadline")
        ),
    )
    op.create_index("ix_node_tasks_turns", "node_tasks", ["job_uid", "state", "position"])
    op.create_index("ix_node_tasks_deadlines", "node_tasks", ["deadline"], sqlite_where=sa.text("deadline IS NOT NULL"))
    op.create_index(
        "ix_node_tasks_live_of_node",
        "node_tasks",
        ["node"],
        sqlite_where=sa.text("state IN ('Waiting', 'Checking', 'Pulling')"),
    )
