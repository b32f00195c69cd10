"""Users' templates, and how large the disk of a checkpoint is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0008"
down_revision = "v0007"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("snapshots", sa.Column("disk_mib", sa.BigInteger))
    op.create_table(
        "templates",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_templates"),
        sa.ForeignKeyConstraint(["owner"], ["users.id"], name="fk_templates_owner", ondelete="CASCADE"),
        sa.UniqueConstraint("owner", "name", name="uq_templates_owner_name"),
    )
    op.create_index("ix_templates_created_at_id", "templates", ["created_at", "id"])
    op.create_index("ix_templates_owner_created_at_id", "templates", ["owner", "created_at", "id"])
    op.create_index("ix_templates_name", "templates", ["name"])
