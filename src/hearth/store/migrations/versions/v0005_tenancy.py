"""Keys with names, scopes and last uses; quotas; secrets; the audit log; signatures that were seen."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "v0005"
down_revision = "v0004"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _widen()
    _create_secrets()
    _create_audit()
    op.create_table(
        "signatures",
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_signatures"),
    )
    op.create_index("ix_signatures_expires_at", "signatures", ["expires_at"])


def _widen() -> None:
    # Nullable columns only: neither SQLite nor PostgreSQL has to write a row anew for them.
    op.add_column("users", sa.Column("quotas", sa.JSON))
    op.add_column("api_keys", sa.Column("name", sa.String(63)))
    op.add_column("api_keys", sa.Column("kind", sa.String(8)))
    op.add_column("api_keys", sa.Column("scope", sa.String(8)))
    op.add_column("api_keys", sa.Column("sandbox_id", sa.String(32)))
    op.add_column("api_keys", sa.Column("last_used_at", TIME))
    op.add_column("api_keys", sa.Column("sealed", sa.LargeBinary))
    op.add_column("api_keys", sa.Column("sealed_by", sa.String(32)))
    op.add_column("sandboxes", sa.Column("disk_mib", sa.BigInteger))


def _create_secrets() -> None:
    op.create_table(
        "secrets",
        sa.Column("owner", sa.String(32), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("owner", "name", name="pk_secrets"),
        sa.ForeignKeyConstraint(["owner"], ["users.id"], name="fk_secrets_owner", ondelete="CASCADE"),
    )


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("user_name", sa.String(63), nullable=False),
        sa.Column("key_id", sa.String(32)),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("object", sa.String(255)),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("code", sa.String(32)),
        sa.Column("remote", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_created_at_id", "audit", ["created_at", "id"])
    op.create_index("ix_audit_user_id_created_at_id", "audit", ["user_id", "created_at", "id"])
