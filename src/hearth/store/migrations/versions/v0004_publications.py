"""Ports of sandboxes that everybody can reach."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0004"
down_revision = "v0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "publications",
        sa.Column("alias", sa.String(63), nullable=False),
        sa.Column("sandbox_id", sa.String(32), nullable=False),
        sa.Column("port", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("alias", name="pk_publications"),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name="fk_publications_sandbox_id", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("sandbox_id", "port", name="uq_publications_sandbox_id_port"),
    )
