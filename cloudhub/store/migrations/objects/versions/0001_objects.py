"""Objects of the embedded API server, and the revision given last.

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
    op.create_table(
        "objects",
        sa.Column("resource", sa.Text, primary_key=True),
        sa.Column("namespace", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("revision", name=op.f("uq_objects_revision")),
        sa.CheckConstraint("revision > 0", name=op.f("ck_objects_revision_positive")),
        sa.CheckConstraint("resource <> '' AND name <> ''", name=op.f("ck_objects_named")),
    )
    revisions = op.create_table(
        "revisions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_revisions_single_row")),
        sa.CheckConstraint("last >= 0", name=op.f("ck_revisions_last_not_negative")),
    )
    op.bulk_insert(revisions, [{"id": 1, "last": 0}])


def downgrade() -> None:
    op.drop_table("revisions")
    op.drop_table("objects")
