"""A row in every table of any version of the schema, as a daemon of that version would have written it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, inspect

from hearth.store.base import Store
from hearth.store.dump import TableHead, kind_of, table_of, tables_of

NOON = datetime(2026, 1, 2, 12, 0, 0, 6, tzinfo=UTC)
BY_KIND: dict[str, Any] = {
    **{"text": "x", "integer": 7, "number": 1.5, "boolean": False},
    **{"time": NOON, "bytes": b"\x00\xff", "json": {"ü": [1, None, "\\u0000"]}},
}
BY_COLUMN: dict[str, Any] = {
    **{"owner": "user-ada", "user_id": "user-ada", "sandbox_id": "sb-1", "volume_id": "vol-1", "parent": None},
    **{"lease_owner": None, "lease_until": None, "error": None, "expires_at": None, "revoked_at": None},
    **{"failure": None, "host": None, "quotas": None, "origin": None, "exit_cause": None, "name": "web"},
}
ROWS: dict[str, dict[str, Any]] = {
    "users": {"id": "user-ada", "name": "ada", "admin": True},
    "api_keys": {"id": "key-1", "sha256": "d" * 64, "kind": "bearer", "scope": "full", "sandbox_id": None},
    "sandboxes": {
        "id": "sb-1",
        "spec": {"name": "web", "cpus": 2, "env": {"A": "ü\n"}, "labels": {"tier": "web"}},
        "state": "stopped",
    },
    "jobs": {"id": "job-1", "kind": "bringup", "subject": "sb-1", "state": "completed", "input": {}, "steps": []},
    "snapshots": {"id": "snap-1", "state": "ready", "size_bytes": 5_000_000_000, "sandbox_name": "web"},
    "endings": {"exit_cause": {"kind": "user", "detail": "stopped", "at": "2026-01-02T12:00:00Z"}, "ended_at": None},
    "volumes": {"id": "vol-1", "state": "ready", "fs": "ext4"},
    "publications": {"alias": "web"},
    "execs": {"id": "exec-1", "argv": ["sh", "-c", "true"], "state": "exited", "kept": True},
    "signatures": {"expires_at": NOON},
    "audit": {"id": "audit-1"},
    "templates": {"id": "tpl-1", "spec": {}},
    "webhooks": {"id": "hook-1", "job_id": "job-1", "origin": "https://example.org:443", "disabled_at": None},
    "deliveries": {"id": "evt-1", "webhook_id": "hook-1", "ended_at": None},
    "hosts": {"id": "host-000000000000", "name": "old.example.org"},
}


def fill(connection: Connection) -> None:
    """Write the rows; a second snapshot has the first for its parent."""
    for table in tables_of(connection):
        columns = {str(each["name"]): kind_of(each["type"]) for each in inspect(connection).get_columns(table)}
        known = {**BY_COLUMN, **ROWS.get(table, {})}
        row = {name: known.get(name, BY_KIND[kind]) for name, kind in columns.items()}
        if table == "endings":
            row["ended_at"] = datetime.now(UTC)
        rows = [row]
        if table == "snapshots":
            rows = [row, {**row, "id": "snap-0", "name": "later", "parent": "snap-1"}]
        target = table_of(TableHead(table=table, columns=columns))
        for each in rows:
            connection.execute(insert(target), each)


async def read_everything(store: Store) -> dict[str, object]:
    """Give what the store makes of the rows, by kind."""
    return {
        "user": await store.users.get("user-ada"),
        "keys": await store.users.list_keys("user-ada"),
        "sandboxes": (await store.sandboxes.list(None, labels={"tier": "web"})).items,
        "jobs": (await store.jobs.list()).items,
        "snapshots": (await store.snapshots.list(None)).items,
        "children": await store.snapshots.children_of("snap-1"),
        "endings": (await store.endings.list(None)).items,
        "volumes": (await store.volumes.list(None)).items,
        "placements": await store.volumes.in_sandbox("sb-1"),
        "publications": (await store.publications.list(None)).items,
        "secrets": (await store.secrets.list("user-ada")).items,
        "audit": (await store.audit.list()).items,
        "execs": (await store.execs.list(None, sandbox_id="sb-1")).items,
        "deliveries": await store.webhooks.deliveries("job-1"),
        "used": await store.quotas.used("user-ada"),
    }
