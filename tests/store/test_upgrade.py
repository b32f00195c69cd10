"""Databases of earlier versions, with rows, are brought to this one's schema; and numbers in them are read right."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from hearth.model import ExitCause, ExitKind, Sandbox, SandboxChanges, SandboxSpec, SandboxState, User
from hearth.store.base import StoreDamaged
from hearth.store.migrate import migrate, upgrade
from hearth.store.sql import open_store
from hearth.store.sqlite import make_engine, sqlite_path
from hearth.tenancy import KeyKind, KeyScope

MORNING = "2026-01-02 03:04:05.000006"
CREATED = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
SPEC = '{"name":"web","image":"alpine","cpus":2,"memory_mib":512,"env":{"A":"1"},"labels":{"tier":"web"}}'
STEP = '{"name":"boot","phase":"do","started_at":"2026-01-02T03:04:05Z","duration_s":"1.5","error":null}'


@pytest.fixture
def first_version(url: str) -> Path:
    """A database as the first version of hearth left it, with a row in every table."""
    path = sqlite_path(url)
    engine = make_engine(path, busy_timeout_s=1)
    with engine.connect() as connection, connection.begin():
        upgrade(connection, "v0001")
        for statement, values in (
            ("users VALUES (:id, 'ada', 0, :at)", {"id": "user-ada"}),
            ("api_keys VALUES ('key-1', 'user-ada', 'digest', 'hk_1', :at, NULL, NULL)", {}),
            ("sandboxes VALUES ('sb-1', 'user-ada', 'web', :spec, 'running', 'x', :at, :at)", {"spec": SPEC}),
            (
                "jobs VALUES ('job-1', 'bringup', 'sb-1', 'completed', 'boot', 1, '{}', NULL, :steps, NULL, NULL,"
                " :at, :at, :at)",
                {"steps": f"[{STEP}]"},
            ),
        ):
            connection.execute(text(f"INSERT INTO {statement}"), {"at": MORNING, **values})
    engine.dispose()
    return path


async def test_a_first_versions_rows_survive_and_can_do_what_is_new(first_version: Path, url: str) -> None:
    store = await open_store(url)
    spec = SandboxSpec(
        name="web", image="alpine", cpus=2, memory_mib=512, env={"A": "1"}, labels={"tier": "web"}, keep_hot=False
    )
    expected = Sandbox(
        id="sb-1", owner="user-ada", spec=spec, state=SandboxState.RUNNING, created_at=CREATED, error="x"
    )
    assert await store.sandboxes.get("sb-1") == expected
    assert await store.users.get("user-ada") == User(id="user-ada", name="ada")
    key = (await store.users.authenticate("digest"))[1]
    assert (key.id, key.scope, key.kind, key.sandbox_id) == ("key-1", KeyScope.FULL, KeyKind.BEARER, None)
    assert (await store.quotas.used("user-ada")).memory_mib == 512
    assert (await store.secrets.list("user-ada")).items == []
    assert (await store.audit.list()).items == []
    assert (await store.jobs.get("job-1")).steps[0].duration_s == 1.5
    cause = ExitCause(kind=ExitKind.USER, detail="stopped", at=CREATED)
    stopped = await store.sandboxes.transition("sb-1", {SandboxState.RUNNING}, SandboxState.STOPPED, exit_cause=cause)
    assert stopped.exit_cause == cause
    assert (await store.sandboxes.update("sb-1", SandboxChanges(keep_hot=True))).spec.keep_hot is True
    assert (await store.snapshots.list(None)).items == []
    assert (await store.endings.list(None)).items == []
    assert (await store.volumes.list(None)).items == []
    await store.close()


def test_references_still_hold_after_an_upgrade(first_version: Path, url: str) -> None:
    assert migrate(url) is True
    connection = sqlite3.connect(first_version)
    connection.execute("PRAGMA foreign_keys=ON")
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("DELETE FROM users")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


@pytest.mark.parametrize(
    "numbers",
    [
        '"cpus":2,"memory_mib":512,"ttl_s":60,"idle_pause_s":30,"idle_stop_s":1800.5,"keep_hot":true',
        '"cpus":2.0,"memory_mib":512.0,"ttl_s":60.0,"idle_pause_s":30.0,"idle_stop_s":1800.5,"keep_hot":1',
        '"cpus":"2","memory_mib":"512","ttl_s":"60","idle_pause_s":"30","idle_stop_s":"1800.5","keep_hot":"true"',
    ],
    ids=["as written", "floats", "strings"],
)
async def test_numbers_that_come_back_as_floats_or_strings_mean_the_same(
    first_version: Path, url: str, numbers: str
) -> None:
    put_spec(first_version, '{"name":"web","env":{"NUMBER":"7","NULL":"null"},' + numbers + "}")
    store = await open_store(url)
    try:
        spec = (await store.sandboxes.get("sb-1")).spec
    finally:
        await store.close()
    assert (spec.cpus, spec.memory_mib, spec.ttl_s, spec.keep_hot) == (2, 512, 60, True)
    assert [type(value) for value in (spec.cpus, spec.memory_mib, spec.ttl_s, spec.keep_hot)] == [int, int, int, bool]
    assert (spec.idle_pause_s, spec.idle_stop_s) == (30.0, 1800.5)
    assert spec.env == {"NUMBER": "7", "NULL": "null"}


@pytest.mark.parametrize("cpus", ["2.5", '"two"', "[2]", "null"])
async def test_numbers_that_mean_nothing_are_damage(first_version: Path, url: str, cpus: str) -> None:
    put_spec(first_version, f'{{"name":"web","cpus":{cpus}}}')
    store = await open_store(url)
    try:
        with pytest.raises(StoreDamaged, match=r"sb-1.*cpus"):
            await store.sandboxes.get("sb-1")
    finally:
        await store.close()


def put_spec(path: Path, spec: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute("UPDATE sandboxes SET spec = ?", (spec,))
    connection.commit()
    connection.close()
