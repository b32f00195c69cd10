"""Several hosts on one database: what is on a host is its own, all else is everybody's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from tests.postgresql import Server, connected

from hearth.errors import Conflict, NotFound, QuotaExceeded
from hearth.execs import Exec
from hearth.host.clock import ManualClock
from hearth.model import (
    Job,
    JobState,
    NamedVolume,
    Publication,
    Sandbox,
    SandboxSpec,
    SandboxState,
    Snapshot,
    SnapshotState,
    User,
    VolumeState,
)
from hearth.quota import Quotas
from hearth.store.answer_store import Answer
from hearth.store.base import LeaseLost, LineFull, SandboxExists
from hearth.store.host_store import Host
from hearth.store.sql import SqlStore, open_store
from hearth.store.sqlite import sqlite_path

pytestmark = [pytest.mark.postgresql, pytest.mark.slow]

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
ADA = User(id="user-ada", name="ada")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def url(postgresql: Server, migrated_template: str) -> Iterator[str]:
    with postgresql.database(migrated_template) as made:
        yield made


@pytest.fixture
async def stores(url: str, clock: ManualClock) -> AsyncIterator[tuple[SqlStore, SqlStore]]:
    """Two hosts' views of one database; both know ada."""
    here, there = [
        await open_store(url, clock=clock, quotas=Quotas(sandboxes=2), host=f"host-{name}")
        for name in ("here", "there")
    ]
    for store, name in ((here, "here"), (there, "there")):
        await store.hosts.enter(Host(id=f"host-{name}", name=f"{name}.example.org", tag=name, run=f"daemon-{name}"))
    await here.users.create(ADA)
    yield here, there
    await here.close()
    await there.close()


def sandbox(name: str) -> Sandbox:
    spec = SandboxSpec(name=name, labels={"tier": "web"})
    return Sandbox(id=f"sb-{name}", owner=ADA.id, spec=spec, state=SandboxState.RUNNING, created_at=NOON)


async def test_sandboxes_are_seen_by_their_own_host_alone(stores: tuple[SqlStore, SqlStore]) -> None:
    here, there = stores
    await here.sandboxes.create(sandbox("web"))
    assert (await here.sandboxes.resolve(ADA.id, "web")).id == "sb-web"
    assert [each.id for each in (await here.sandboxes.list(None, labels={"tier": "web"})).items] == ["sb-web"]
    assert (await there.sandboxes.list(None)).items == []
    assert (await here.sandboxes.count(None), await there.sandboxes.count(None)) == (1, 0)
    with pytest.raises(NotFound):
        await there.sandboxes.get("sb-web")
    for reference in ("web", "sb-web"):
        with pytest.raises(NotFound, match=r"on here\.example\.org"):
            await there.sandboxes.resolve(ADA.id, reference)
        with pytest.raises(NotFound) as caught:
            await there.sandboxes.resolve("user-eve", reference)
        assert "here" not in caught.value.details


async def test_a_name_is_one_users_on_all_hosts_and_quotas_count_all_of_them(
    stores: tuple[SqlStore, SqlStore],
) -> None:
    here, there = stores
    await here.sandboxes.create(sandbox("web"))
    with pytest.raises(Conflict, match="another host") as caught:
        await there.sandboxes.create(replace(sandbox("web"), id="sb-2"))
    assert not isinstance(caught.value, SandboxExists)
    await there.sandboxes.create(sandbox("db"))
    for store in stores:
        assert (await store.quotas.used(ADA.id)).sandboxes == 2
        with pytest.raises(QuotaExceeded):
            await store.sandboxes.create(sandbox("third"))


async def test_snapshots_volumes_commands_and_publications_are_their_hosts_own(
    stores: tuple[SqlStore, SqlStore],
) -> None:
    here, there = stores
    await here.sandboxes.create(sandbox("web"))
    kept = Snapshot(
        id="snap-1",
        owner=ADA.id,
        name="base",
        sandbox_id="sb-web",
        sandbox_name="web",
        parent=None,
        created_at=NOON,
        image="debian",
        cpus=1,
        memory_mib=256,
        size_bytes=1,
        state=SnapshotState.READY,
    )
    await here.snapshots.create(kept)
    volume = NamedVolume(
        id="vol-1", owner=ADA.id, name="data", size_mib=64, fs="ext4", created_at=NOON, state=VolumeState.READY
    )
    await here.volumes.create(volume)
    await here.publications.create(Publication(alias="web", sandbox_id="sb-web", port=80, created_at=NOON))
    await here.execs.save([Exec(id="exec-1", sandbox_id="sb-web", owner=ADA.id, argv=("true",), created_at=NOON)])

    assert (await here.snapshots.resolve(ADA.id, "base")).id == "snap-1"
    assert (await here.volumes.resolve(ADA.id, "data")).id == "vol-1"
    assert (await here.publications.find("web")).port == 80
    assert [each.id for each in await here.execs.running()] == ["exec-1"]
    assert len((await here.publications.list(None)).items) == 1

    assert (await there.snapshots.list(None)).items == []
    assert (await there.volumes.list(None)).items == []
    assert (await there.publications.list(None)).items == []
    assert await there.execs.running() == []
    assert await there.execs.known() == {}
    for missing in (
        there.snapshots.get("snap-1"),
        there.snapshots.resolve(ADA.id, "base"),
        there.volumes.get("vol-1"),
        there.volumes.resolve(ADA.id, "data"),
        there.publications.find("web"),
        there.execs.get(None, "exec-1"),
    ):
        with pytest.raises(NotFound):
            await missing


async def test_a_hosts_jobs_are_left_alone_by_others_and_shared_ones_change_hands_when_their_lease_has_run_out(
    stores: tuple[SqlStore, SqlStore], clock: ManualClock
) -> None:
    here, there = stores
    states = {JobState.PENDING, JobState.RUNNING}
    await here.jobs.create(Job(id="job-own", kind="bringup", subject="sb-web", created_at=NOON))
    shared = Job(id="job-any", kind="provision", subject="data", created_at=NOON + timedelta(1), any_host=True)
    await here.jobs.create(shared)
    assert [job.id for job in await there.jobs.claimable(states=states)] == ["job-any"]
    with pytest.raises(NotFound):
        await there.jobs.claim("job-own", "daemon-there", expected=states, new=JobState.RUNNING, lease_s=30)

    async def next_for(store: SqlStore, owner: str) -> Job | None:
        kinds = {"bringup", "provision"}
        return await store.jobs.claim_next(owner, kinds=kinds, expected=states, new=JobState.RUNNING, lease_s=30)

    first, second = await next_for(here, "daemon-here"), await next_for(here, "daemon-here")
    assert first is not None and first.id == "job-own"
    assert second is not None and second == replace(second, id="job-any", any_host=True, lease_owner="daemon-here")
    assert await next_for(there, "daemon-there") is None
    clock.advance(31)
    taken = await next_for(there, "daemon-there")
    assert taken is not None and (taken.id, taken.attempt, taken.any_host) == ("job-any", 2, True)
    with pytest.raises(LeaseLost):
        await here.jobs.renew("job-any", "daemon-here", lease_s=30)
    assert await next_for(there, "daemon-there") is None


async def test_a_request_under_way_at_one_daemon_is_not_begun_at_another(stores: tuple[SqlStore, SqlStore]) -> None:
    here, there = stores
    asked = Answer(user_id=ADA.id, key="k", digest="d", holder="host-here/daemon-1", created_at=here_now())
    assert await here.answers.begin(asked) == asked
    with pytest.raises(Conflict, match="under way at another daemon"):
        await there.answers.begin(replace(asked, holder="host-there/daemon-1"))
    again = await here.answers.begin(replace(asked, holder="host-here/daemon-2"))
    assert again.holder == "host-here/daemon-2"


def here_now() -> datetime:
    return datetime.now(UTC)


async def test_what_was_nobodys_becomes_the_first_hosts_and_stays_its_own(url: str) -> None:
    first = await open_store(url, host="host-first")
    await first.users.create(ADA)
    await first.sandboxes.create(sandbox("web"))
    with connected(url) as connection:
        connection.execute("UPDATE sandboxes SET host = NULL")
    await first.close()
    for host, count in (("host-second", 1), ("host-third", 0)):
        store = await open_store(url, host=host)
        assert await store.sandboxes.count(None) == count
        await store.close()


async def test_a_sqlite_file_is_its_data_directorys_whoever_wrote_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('one') / 'hearth.db'}"
    first = await open_store(url, host="host-first")
    await first.users.create(ADA)
    await first.sandboxes.create(sandbox("web"))
    await first.jobs.create(Job(id="job-any", kind="provision", subject="data", created_at=NOON, any_host=True))
    await first.close()
    second = await open_store(url, host="host-second")
    assert (await second.sandboxes.get("sb-web")).id == "sb-web"
    assert (await second.jobs.get("job-any")).any_host
    await second.close()
    assert sqlite_path(url).exists()


async def test_the_line_is_as_long_as_it_may_be_however_many_daemons_are_asked_at_once(
    stores: tuple[SqlStore, SqlStore],
) -> None:
    wanted = [
        stores[number % 2].jobs.create(
            Job(id=f"job-{number:02}", kind="volume.provision", subject="vm", any_host=True, created_at=NOON), most=5
        )
        for number in range(24)
    ]
    found = await asyncio.gather(*wanted, return_exceptions=True)
    assert [each for each in found if not isinstance(each, LineFull)] == [None] * 5
    for store in stores:
        assert len((await store.jobs.list()).items) == 5
