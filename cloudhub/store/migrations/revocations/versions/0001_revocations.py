"""Revoked nodes, and the certificates signed for them since that was undone.

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
        "revocations",
        sa.Column("node", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("applied", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("session_ended", sa.Boolean, nullable=False, server_default=sa.text("0")),
        sa.Column("revoked_at", sa.Double, nullable=False),
        sa.Column("undone_at", sa.Double),
        sa.CheckConstraint("node <> ''", name=op.f("ck_revocations_named")),
        sa.CheckConstraint("number > 0 AND applied >= 0 AND applied <= number", name=op.f("ck_revocations_applied")),
    )
    op.create_table(
        "certificates",
        sa.Column(
            "node",
            sa.Text,
            sa.ForeignKey("revocations.node", name=op.f("fk_certificates_node"), ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("serial", sa.Text, primary_key=True),
        sa.Column("signed_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.CheckConstraint("serial <> ''", name=op.f("ck_certificates_numbered")),
    )


def downgrade() -> None:
    op.drop_table("certificates")
    op.drop_table("revocations")
