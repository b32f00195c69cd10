"""What a job alone may work on until it ends: of two daemons that are given the same, one makes a job of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0014"
down_revision = "v0013"
branch_labels = None
depends_on = None

UNENDED = sa.text("state IN ('pending', 'running', 'undoing')")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("holds", sa.String(300)))
    op.create_index("uq_jobs_holds", "jobs", ["holds"], unique=True, sqlite_where=UNENDED, postgresql_where=UNENDED)
