"""Which host something is on, for several daemons on one database, and when each was last heard of."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0010"
down_revision = "v0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Nullable columns only; a daemon that opens the database takes what is nobody's.
    for table in ("sandboxes", "snapshots", "volumes", "execs", "jobs"):
        op.add_column(table, sa.Column("host", sa.String(32)))
    op.create_table(
        "hosts",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("tag", sa.String(32), nullable=False),
        sa.Column("run", sa.String(64), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_hosts"),
    )
