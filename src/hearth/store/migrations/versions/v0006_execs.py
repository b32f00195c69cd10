"""Commands that were run, and where their logs stand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0006"
down_revision = "v0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "execs",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("sandbox_id", sa.String(32), nullable=False),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("argv", sa.JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cwd", sa.Text),
        sa.Column("run_as", sa.Text),
        sa.Column("kept", sa.Boolean, nullable=False),
        sa.Column("detached", sa.Boolean, nullable=False),
        sa.Column("linger_s", sa.Float, nullable=False),
        sa.Column("timeout_s", sa.Float),
        sa.Column("stdin_open", sa.Boolean, nullable=False),
        sa.Column("output_file", sa.Text),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("failure", sa.JSON),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("output_bytes", sa.BigInteger, nullable=False),
        sa.Column("log_start", sa.BigInteger, nullable=False),
        sa.Column("log_bytes", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_execs"),
        sa.ForeignKeyConstraint(["sandbox_id"], ["sandboxes.id"], name="fk_execs_sandbox_id", ondelete="CASCADE"),
    )
    for columns in (["sandbox_id", "created_at", "id"], ["owner"], ["state"], ["ended_at", "id"]):
        op.create_index(f"ix_execs_{'_'.join(columns)}", "execs", columns)
