"""That a job is to end, for the daemon that works on it, which may be another host's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0012"
down_revision = "v0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("cancel_asked_at", sa.DateTime(timezone=True)))
