"""Volumes, and where they are in sandboxes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0003"
down_revision = "v0002"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "volumes",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("size_mib", sa.BigInteger, nullable=False),
        sa.Column("fs", sa.String(16), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_volumes"),
        sa.ForeignKeyConstraint(["owner"], ["users.id"], name="fk_volumes_owner", ondelete="RESTRICT"),
        sa.UniqueConstraint("owner", "name", name="uq_volumes_owner_name"),
    )
    op.create_index("ix_volumes_created_at_id", "volumes", ["created_at", "id"])
    op.create_index("ix_volumes_owner_created_at_id", "volumes", ["owner", "created_at", "id"])
    op.create_index("ix_volumes_name", "volumes", ["name"])
    op.create_table(
        "volume_placements",
        sa.Column("sandbox_id", sa.String(32), nullable=False),
        sa.Column("volume_id", sa.String(32), nullable=False),
        sa.Column("mount", sa.String(1024), nullable=False),
        sa.Column("read_only", sa.Boolean, nullable=False),
        sa.Column("slot", sa.Integer, nullable=False),
        sa.Column("attached_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("sandbox_id", "volume_id", name="pk_volume_placements"),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name="fk_volume_placements_sandbox_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["volume_id"], ["volumes.id"], name="fk_volume_placements_volume_id", ondelete="RESTRICT"
        ),
        sa.UniqueConstraint("sandbox_id", "slot", name="uq_volume_placements_sandbox_id_slot"),
    )
    op.create_index("ix_volume_placements_volume_id", "volume_placements", ["volume_id"])
