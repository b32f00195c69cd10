"""The tables. What a migration has built must equal this metadata; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

REVISIONS = (
    *("v0001", "v0002", "v0003", "v0004", "v0005", "v0006", "v0007", "v0008"),
    *("v0010", "v0011", "v0012", "v0013", "v0014"),
)
"""All migrations this version of hearth knows, oldest first; the last one is what it works with."""

HEAD = REVISIONS[-1]

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
"""Every constraint has a name, so that a later migration can drop it."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime: PostgreSQL keeps the zone, SQLite keeps UTC as readable text."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(naming_convention=NAMING)

users = Table(
    "users",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    Column("admin", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("quotas", JSON(none_as_null=True)),
    Index(None, "created_at", "id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    Column("name", String(63)),
    Column("kind", String(8)),
    Column("scope", String(8)),
    Column("sandbox_id", String(32)),
    Column("last_used_at", UtcDateTime),
    Column("sealed", LargeBinary),
    Column("sealed_by", String(32)),
)

sandboxes = Table(
    "sandboxes",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", ForeignKey("users.id", ondelete="RESTRICT"), nullable=False),
    Column("name", String(63), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("state", String(16), nullable=False),
    Column("error", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("image_id", String(64)),
    Column("origin", String(64)),
    Column("parent", String(64)),
    Column("expires_at", UtcDateTime),
    Column("exit_cause", JSON(none_as_null=True)),
    Column("stopped_at", UtcDateTime),
    Column("disk_mib", BigInteger),
    Column("host", String(32)),
    UniqueConstraint("owner", "name"),
    Index(None, "created_at", "id"),
    Index(None, "owner", "created_at", "id"),
    Index(None, "name"),
    Index(None, "origin"),
)

UNENDED = text("state IN ('pending', 'running', 'undoing')")
"""Jobs that have not come to an end."""
jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("kind", String(32), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("state", String(16), nullable=False),
    Column("step", String(64)),
    Column("attempt", Integer, nullable=False),
    Column("input", JSON, nullable=False),
    Column("error", JSON(none_as_null=True)),
    Column("steps", JSON, nullable=False),
    Column("lease_owner", String(64)),
    Column("lease_until", UtcDateTime),
    Column("created_at", UtcDateTime, nullable=False),
    Column("started_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("owner", String(32)),
    Column("host", String(32)),
    Column("result", JSON(none_as_null=True)),
    Column("cancel_asked_at", UtcDateTime),
    Column("holds", String(300)),
    Index("uq_jobs_holds", "holds", unique=True, sqlite_where=UNENDED, postgresql_where=UNENDED),
    Index(None, "created_at", "id"),
    Index(None, "owner", "created_at", "id"),
    Index(None, "state", "created_at", "id"),
    Index(None, "subject", "created_at", "id"),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", ForeignKey("users.id", ondelete="RESTRICT"), nullable=False),
    Column("name", String(63), nullable=False),
    Column("sandbox_id", String(32), nullable=False),
    Column("sandbox_name", String(63), nullable=False),
    Column("parent", ForeignKey("snapshots.id", ondelete="RESTRICT"), index=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("image", String(63), nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("memory_mib", Integer, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("disk_mib", BigInteger),
    Column("host", String(32)),
    Index(None, "created_at", "id"),
    Index(None, "owner", "created_at", "id"),
    Index(None, "name"),
)

Index(
    "uq_snapshots_owner_name",
    snapshots.c.owner,
    snapshots.c.name,
    unique=True,
    sqlite_where=text("state <> 'deleting'"),
    postgresql_where=text("state <> 'deleting'"),
)
"""One that is being deleted gives its name free, however long others still lie over its disk."""

templates = Table(
    "templates",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(63), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("owner", "name"),
    Index(None, "created_at", "id"),
    Index(None, "owner", "created_at", "id"),
    Index(None, "name"),
)

endings = Table(
    "endings",
    metadata,
    Column("sandbox_id", String(32), primary_key=True),
    Column("owner", ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(63), nullable=False),
    Column("image", String(63), nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("memory_mib", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, nullable=False),
    Column("exit_cause", JSON, nullable=False),
    Index(None, "ended_at", "sandbox_id"),
    Index(None, "owner", "ended_at", "sandbox_id"),
    Index(None, "name"),
)

volumes = Table(
    "volumes",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("owner", ForeignKey("users.id", ondelete="RESTRICT"), nullable=False),
    Column("name", String(100), nullable=False),
    Column("size_mib", BigInteger, nullable=False),
    Column("fs", String(16), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False),
    Column("host", String(32)),
    UniqueConstraint("owner", "name"),
    Index(None, "created_at", "id"),
    Index(None, "owner", "created_at", "id"),
    Index(None, "name"),
)

volume_placements = Table(
    "volume_placements",
    metadata,
    Column("sandbox_id", ForeignKey("sandboxes.id", ondelete="CASCADE"), primary_key=True),
    Column("volume_id", ForeignKey("volumes.id", ondelete="RESTRICT"), primary_key=True, index=True),
    Column("mount", String(1024), nullable=False),
    Column("read_only", Boolean, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("attached_at", UtcDateTime, nullable=False),
    UniqueConstraint("sandbox_id", "slot"),
)

publications = Table(
    "publications",
    metadata,
    Column("alias", String(63), primary_key=True),
    Column("sandbox_id", ForeignKey("sandboxes.id", ondelete="CASCADE"), nullable=False),
    Column("port", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("sandbox_id", "port"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("owner", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("key_id", String(32), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("user_id", String(32), nullable=False),
    Column("user_name", String(63), nullable=False),
    Column("key_id", String(32)),
    Column("action", String(64), nullable=False),
    Column("object", String(255)),
    Column("status", Integer, nullable=False),
    Column("code", String(32)),
    Column("remote", String(64), nullable=False),
    Column("request_id", String(128), nullable=False),
    Index(None, "created_at", "id"),
    Index(None, "user_id", "created_at", "id"),
)
"""Without a reference to users: what somebody did is remembered when they are gone."""

signatures = Table(
    "signatures",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
)

execs = Table(
    "execs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("sandbox_id", ForeignKey("sandboxes.id", ondelete="CASCADE"), nullable=False),
    Column("owner", String(32), nullable=False),
    Column("argv", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("cwd", Text),
    Column("run_as", Text),
    Column("kept", Boolean, nullable=False),
    Column("detached", Boolean, nullable=False),
    Column("linger_s", Float, nullable=False),
    Column("timeout_s", Float),
    Column("stdin_open", Boolean, nullable=False),
    Column("output_file", Text),
    Column("state", String(16), nullable=False),
    Column("exit_code", Integer),
    Column("failure", JSON(none_as_null=True)),
    Column("ended_at", UtcDateTime),
    Column("output_bytes", BigInteger, nullable=False),
    Column("log_start", BigInteger, nullable=False),
    Column("log_bytes", BigInteger, nullable=False),
    Column("host", String(32)),
    Index(None, "sandbox_id", "created_at", "id"),
    Index(None, "owner"),
    Index(None, "state"),
    Index(None, "ended_at", "id"),
)

answers = Table(
    "answers",
    metadata,
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("holder", String(64), nullable=False),
    Column("status", Integer),
    Column("sealed", LargeBinary),
    Column("created_at", UtcDateTime, nullable=False, index=True),
    Index(None, "user_id", "created_at"),
)
"""Answers to requests with an Idempotency-Key, of which only the hash is here; without a status it is not there yet."""

hosts = Table(
    "hosts",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(255), nullable=False),
    Column("tag", String(32), nullable=False),
    Column("run", String(64), nullable=False),
    Column("seen_at", UtcDateTime),
)
"""Whose daemons use this database. What others refer to as ``host`` need not be here: a host may never come again."""

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("job_id", String(32), nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("origin", String(300), nullable=False),
    Column("with_progress", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime),
)
"""Without a reference to jobs: what is to be sent of one is sent when its row is gone."""

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("webhook_id", ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", String(32), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("next_at", UtcDateTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("status", Integer),
    Column("error", Text),
    Column("lease_owner", String(64)),
    Column("lease_until", UtcDateTime),
    Column("ended_at", UtcDateTime),
    UniqueConstraint("webhook_id", "number"),
    Index(None, "ended_at", "next_at"),
)
