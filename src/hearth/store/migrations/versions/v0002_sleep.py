"""Sandboxes that sleep, fork, expire and leave a cause behind; checkpoints; what is remembered of destroyed ones."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0002"
down_revision = "v0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
NOT_DELETING = sa.text("state <> 'deleting'")


def upgrade() -> None:
    _widen_sandboxes()
    _create_snapshots()
    _create_endings()


def _widen_sandboxes() -> None:
    # Nullable columns only: neither SQLite nor PostgreSQL has to write a row anew for them.
    op.add_column("sandboxes", sa.Column("image_id", sa.String(64)))
    op.add_column("sandboxes", sa.Column("origin", sa.String(64)))
    op.add_column("sandboxes", sa.Column("parent", sa.String(64)))
    op.add_column("sandboxes", sa.Column("expires_at", TIME))
    op.add_column("sandboxes", sa.Column("exit_cause", sa.JSON))
    op.add_column("sandboxes", sa.Column("stopped_at", TIME))
    op.create_index("ix_sandboxes_origin", "sandboxes", ["origin"])


def _create_snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("sandbox_id", sa.String(32), nullable=False),
        sa.Column("sandbox_name", sa.String(63), nullable=False),
        sa.Column("parent", sa.String(32)),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("image", sa.String(63), nullable=False),
        sa.Column("cpus", sa.Integer, nullable=False),
        sa.Column("memory_mib", sa.Integer, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_snapshots"),
        sa.ForeignKeyConstraint(["owner"], ["users.id"], name="fk_snapshots_owner", ondelete="RESTRICT"),
        sa.ForeignKeyConstraint(["parent"], ["snapshots.id"], name="fk_snapshots_parent", ondelete="RESTRICT"),
    )
    op.create_index("ix_snapshots_created_at_id", "snapshots", ["created_at", "id"])
    op.create_index("ix_snapshots_owner_created_at_id", "snapshots", ["owner", "created_at", "id"])
    op.create_index("ix_snapshots_name", "snapshots", ["name"])
    op.create_index("ix_snapshots_parent", "snapshots", ["parent"])
    op.create_index(
        "uq_snapshots_owner_name",
        "snapshots",
        ["owner", "name"],
        unique=True,
        sqlite_where=NOT_DELETING,
        postgresql_where=NOT_DELETING,
    )


def _create_endings() -> None:
    op.create_table(
        "endings",
        sa.Column("sandbox_id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("image", sa.String(63), nullable=False),
        sa.Column("cpus", sa.Integer, nullable=False),
        sa.Column("memory_mib", sa.Integer, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=False),
        sa.Column("exit_cause", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("sandbox_id", name="pk_endings"),
        sa.ForeignKeyConstraint(["owner"], ["users.id"], name="fk_endings_owner", ondelete="CASCADE"),
    )
    op.create_index("ix_endings_ended_at_sandbox_id", "endings", ["ended_at", "sandbox_id"])
    op.create_index("ix_endings_owner_ended_at_sandbox_id", "endings", ["owner", "ended_at", "sandbox_id"])
    op.create_index("ix_endings_name", "endings", ["name"])
