"""Databases of each released version, with a row in every table, SQLite and PostgreSQL: brought to this schema."""

from __future__ import annotations

import pytest
from tests.store.every_table import fill, read_everything

from hearth.store.base import StoreTooNew
from hearth.store.migrate import migrating, upgrade
from hearth.store.schema import HEAD, REVISIONS
from hearth.store.sql import open_store
from hearth.store.version import VERSION_TABLE

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("revision", REVISIONS)
async def test_rows_of_each_version_are_there_after_the_upgrade(empty_url: str, revision: str) -> None:
    with migrating(empty_url) as connection:
        upgrade(connection, revision)
        fill(connection)
    store = await open_store(empty_url, host="host-1")
    try:
        found = await read_everything(store)
        (sandbox,) = (await store.sandboxes.list(None)).items
        assert (sandbox.id, sandbox.spec.cpus, sandbox.spec.env) == ("sb-1", 2, {"A": "ü\n"})
        assert sandbox.created_at.isoformat() == "2026-01-02T12:00:00.000006+00:00"
        assert (await store.jobs.get("job-1")).any_host is False
        assert bool(await store.hosts.list()) is (revision >= "v0010")
        there = {name for name, value in found.items() if value}
        expected = {"user", "keys", "sandboxes", "jobs", "used"}
        expected |= {"snapshots", "children", "endings"} if revision >= "v0002" else set()
        expected |= {"volumes", "placements"} if revision >= "v0003" else set()
        expected |= {"publications"} if revision >= "v0004" else set()
        expected |= {"secrets", "audit"} if revision >= "v0005" else set()
        expected |= {"execs"} if revision >= "v0006" else set()
        expected |= {"deliveries"} if revision >= "v0013" else set()
        assert there == expected
    finally:
        await store.close()


async def test_a_version_that_is_not_known_is_refused_with_words(migrated_url: str) -> None:
    with migrating(migrated_url) as connection:
        connection.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = 'v1000'")
    with pytest.raises(StoreTooNew, match=f"its schema is v1000, this version knows up to {HEAD}"):
        await open_store(migrated_url)
