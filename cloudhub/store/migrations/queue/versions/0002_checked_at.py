"""When a node's checks succeeded.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # At the end of the table, and without a default: nothing is rewritten, however many rows there are.
    op.add_column("node_tasks", sa.Column("checked_at", sa.Double))


def downgrade() -> None:
    with op.batch_alter_table("node_tasks") as table:
        table.drop_column("checked_at")
