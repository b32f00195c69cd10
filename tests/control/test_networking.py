"""Policies from a row to the kernel: stored first, in force at once, taken back where the kernel refuses."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from tests.network.stage import PUBLIC, Guest, Stage, ip, stage

from hearth.config import DataDirectory, Settings
from hearth.control.egress import MOST_REFUSED, EgressLog
from hearth.control.networking import Networking, inherited
from hearth.control.residents import Residents
from hearth.control.tools import make_volumes
from hearth.engine.local.engine import LocalEngine
from hearth.errors import Conflict, HostUnfit, InvalidInput
from hearth.host.clock import ManualClock
from hearth.jobs.bringup import Workshop
from hearth.jobs.networks import adopt, connect
from hearth.model import Sandbox, SandboxChanges, SandboxSpec, SandboxState, User
from hearth.network.events import EgressEvent, EventKind
from hearth.network.machine import MachineNetwork
from hearth.network.policy import DEFAULT, parse_policy
from hearth.store.memory import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANN = User(id="ann", name="ann")


class Office:
    """The use cases over a network, with rows and no machines."""

    def __init__(self, root: Path, network: MachineNetwork, settings: Settings) -> None:
        self.clock = ManualClock(NOW)
        self.store = MemoryStore(clock=self.clock)
        self.egress = EgressLog(self.clock)
        data = DataDirectory(root=root)
        self.workshop = Workshop(
            data=data,
            settings=settings,
            engine=LocalEngine(),
            network=network,
            volumes=make_volumes(data, self.store, LocalEngine(), self.clock),
            clock=self.clock,
            secret=b"secret",
        )
        self.networking = Networking(
            store=self.store, workshop=self.workshop, residents=Residents(), egress=self.egress
        )

    async def row(self, sandbox_id: str, net_policy: dict[str, object] | None = None) -> Sandbox:
        with contextlib.suppress(Conflict):
            await self.store.users.create(ANN)
        spec = self.networking.with_policy(SandboxSpec(name=sandbox_id, net_policy=net_policy))
        sandbox = Sandbox(id=sandbox_id, owner=ANN.id, spec=spec, state=SandboxState.RUNNING, created_at=NOW)
        await self.store.sandboxes.create(sandbox)
        return sandbox

    async def change(self, sandbox: Sandbox, **fields: object) -> Sandbox:
        return await self.networking.update(sandbox, SandboxChanges(net_policy=fields))

    async def stored(self, sandbox: Sandbox) -> Sandbox:
        return await self.store.sandboxes.get(sandbox.id)


@pytest.fixture
async def scene() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


@pytest.fixture
def office(tmp_path: Path, scene: Stage) -> Office:
    return Office(tmp_path, scene.network, Settings())


async def connected(scene: Stage, sandbox: Sandbox) -> Guest:
    return await scene.guest(sandbox.id, owner=sandbox.owner, policy=parse_policy(sandbox.spec.net_policy or {}))


def event(host: str = "", port: int = 80, kind: EventKind = EventKind.DENIED) -> EgressEvent:
    address = IPv4Address("1.2.3.4")
    return EgressEvent(sandbox_id="sb-1", kind=kind, rule="deny", host=host, address=address, protocol="tcp", port=port)


@pytest.mark.root
async def test_an_edit_is_stored_and_in_force_and_keeps_what_it_does_not_name(office: Office, scene: Stage) -> None:
    row = await office.row("sb-1", {"names": ["api.example.com"]})
    guest = await connected(scene, row)
    assert await guest.dial(PUBLIC[0]) == "refused"
    changed = await office.change(row, base="public")
    assert await guest.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"
    assert (await office.stored(row)).spec.net_policy == changed.spec.net_policy
    assert parse_policy(changed.spec.net_policy or {}).names == ("api.example.com",)


@pytest.mark.root
async def test_what_the_kernel_refuses_is_taken_back_from_the_row(office: Office, scene: Stage) -> None:
    row = await office.row("sb-1")
    guest = await connected(scene, row)
    ip(f"hearth-{scene.tag}.hub", "link", "del", f"m{int(IPv4Address(guest.address)):08x}")
    with pytest.raises(HostUnfit):
        await office.change(row, base="public", download_bytes_per_s=20_000)
    assert parse_policy((await office.stored(row)).spec.net_policy or {}) == DEFAULT
    assert office.networking.address(row) is None, "under neither policy: it is cut off"
    assert await guest.dial(PUBLIC[0]) != f"world {PUBLIC[0]}"


@pytest.mark.root
async def test_a_cold_sandbox_is_edited_in_its_row_alone_and_wakes_with_that(office: Office, scene: Stage) -> None:
    row = await office.row("sb-1")
    changed = await office.change(row, base="public")
    assert office.networking.address(changed) is None
    assert parse_policy((await office.stored(row)).spec.net_policy or {}).reaches_out
    guest = await connected(scene, await office.stored(row))
    assert await guest.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"


@pytest.mark.root
async def test_without_words_a_new_sandbox_has_the_default_of_the_daemon(tmp_path: Path, scene: Stage) -> None:
    office = Office(tmp_path, scene.network, Settings(net_default="public"))
    spec = SandboxSpec(name="dev", net_policy={"names": ["example.com"]})
    assert parse_policy(office.networking.with_policy(spec).net_policy or {}).reaches_out
    closed = Office(tmp_path / "closed", scene.network, Settings())
    assert parse_policy(closed.networking.with_policy(SandboxSpec(name="dev")).net_policy or {}) == DEFAULT


@pytest.mark.root
async def test_a_machine_whose_stored_policy_cannot_be_read_is_not_connected(office: Office, scene: Stage) -> None:
    row = await office.row("sb-1")
    broken = Sandbox(
        id=row.id,
        owner=row.owner,
        spec=SandboxSpec(name="dev", net_policy={"base": "everything"}),
        state=row.state,
        created_at=NOW,
    )
    with pytest.raises(InvalidInput):
        await connect(scene.network, broken, made=False)
    assert await scene.network.list() == set()
    guest = await connected(scene, await office.row("sb-2", {"base": "public"}))
    await scene.network.fabric.close()
    await scene.network.fabric.open()
    unreadable = Sandbox(id="sb-2", owner="ann", spec=broken.spec, state=row.state, created_at=NOW)
    await adopt(scene.network, unreadable)
    assert await guest.dial(PUBLIC[0]) == "refused"


async def test_where_there_are_no_networks_nobody_may_ask_for_a_policy(tmp_path: Path) -> None:
    office = Office(tmp_path, MachineNetwork("0" * 8), Settings(engine="local"))
    row = await office.row("sb-1")
    assert row.spec.net_policy is None
    for asked in (office.row("sb-2", {"base": "deny"}), office.change(row, base="deny")):
        with pytest.raises(InvalidInput) as caught:
            await asked
        assert caught.value.field == "net_policy"


def test_a_copy_takes_its_sources_policy_or_a_narrower_one() -> None:
    source = parse_policy({"names": ["api.example.com"], "networks": ["10.0.0.0/8"]}).describe()
    assert inherited(None, source) == source
    narrower = inherited({"networks": ["10.1.0.0/16"]}, source)
    assert narrower is not None and narrower["networks"] == ["10.1.0.0/16"]
    for wider in ({"base": "public"}, {"networks": ["0.0.0.0/0"]}, {"names": ["*.example.com"]}, {"audit": True}):
        with pytest.raises(Conflict):
            inherited(wider, source)
    with pytest.raises(Conflict):
        inherited({"base": "public"}, None)


def test_what_was_tried_is_counted_and_bounded_and_a_scan_does_not_push_out_what_an_audit_saw() -> None:
    clock = ManualClock(NOW)
    kept = EgressLog(clock)
    kept.tell(event("seen.example.com", kind=EventKind.SEEN))
    for port in range(MOST_REFUSED + 10):
        kept.tell(event(port=port))
    clock.advance(5)
    kept.tell(event(port=MOST_REFUSED))
    tried = kept.tried("sb-1")
    assert (len(tried.attempts), tried.forgotten, tried.counts) == (MOST_REFUSED + 1, 10, {"deny": MOST_REFUSED + 12})
    last = tried.attempts[-1]
    assert (last.event.port, last.count, last.last_at - last.first_at) == (MOST_REFUSED, 2, timedelta(seconds=5))
    assert "seen.example.com" in {attempt.event.host for attempt in tried.attempts}
    kept.forget("sb-1")
    assert kept.tried("sb-1").attempts == ()
