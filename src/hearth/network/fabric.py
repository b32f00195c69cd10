"""The owners' networks: the hub, its uplink, slots made ahead, and the machines that are connected."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import TypeVar

import structlog

from hearth.errors import Conflict, InvalidInput, NotFound
from hearth.host import namespaces, netlink
from hearth.host.nft import Command
from hearth.host.threads import KeptThread, on_own_thread
from hearth.host.waiting import until_done
from hearth.network import rules, slot, uplink
from hearth.network.addresses import SUPERNET, WIDEST_BLOCK, Lease, Ledger
from hearth.network.connection import Connection, EventSink, log_event
from hearth.network.hub import SLOT_PORT_PREFIX, Hub, Reach
from hearth.network.plan import AddressPlan, check_owner, hub_name, namespace_name, slot_prefix
from hearth.network.policy import DEFAULT, Policy
from hearth.network.pool import SlotPool
from hearth.network.slot import Slot
from hearth.network.uplink import Uplink
from hearth.network.upstream import Memory, Opener, Server, Upstream, open_here

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class FabricSettings:
    """How the owners' networks are made.

    Args:
        supernet, block_prefix: of all sandboxes' addresses, and how large a block an owner gets of it at a time.
        uplink: the way to the world; None for none. The host is left as it is until a policy leads there.
        servers: DNS servers of the world; without one its names fail.
        open_socket: gives sockets to them.
        slots: how many machines' networks are made ahead.
        tell: takes each event, on the loop, and must not block.
    """

    supernet: IPv4Network = SUPERNET
    block_prefix: int = WIDEST_BLOCK
    uplink: Uplink | None = None
    servers: tuple[Server, ...] = ()
    open_socket: Opener = open_here
    slots: int = 0
    tell: EventSink = log_event


def check_apart(plan: AddressPlan, settings: FabricSettings) -> None:
    """Refuse networks that overlap.

    Raises:
        InvalidInput: names the supernet, which is what can be moved.
    """
    others = [plan.guest.network] if settings.uplink is None else [plan.guest.network, settings.uplink.network]
    for other in others:
        if settings.supernet.overlaps(other):
            raise InvalidInput(
                "the sandboxes' addresses overlap a network that is in use",
                details=f"{settings.supernet} and {other}",
                resolution="choose another private network for sandboxes",
                field="supernet",
            )


@dataclass(frozen=True)
class Occupant:
    """Whom a slot is claimed for."""

    sandbox_id: str
    owner: str
    policy: Policy


class Fabric:
    """The networks of all owners of one daemon. ``open`` before anything else; ``close`` leaves machines connected."""

    def __init__(self, tag: str, plan: AddressPlan, settings: FabricSettings) -> None:
        check_apart(plan, settings)
        self._tag = tag
        self._plan = plan
        self._settings = settings
        self._hub: Hub | None = None
        self._hub_thread = KeptThread("hub")
        self._pool = SlotPool(settings.slots, self._make_slot, self._discard)
        self._upstream = Upstream(settings.servers, settings.open_socket)
        self._memories: dict[str, Memory] = {}
        self._households: dict[str, dict[str, IPv4Address]] = {}
        self._connections: dict[str, Connection] = {}
        self._reserved: dict[str, Slot] = {}
        """By sandbox id: machines that are nobody's yet, with a slot that leads nowhere."""
        self._linked = asyncio.Event()
        self._linking = asyncio.Lock()
        self._claimed: list[str] = []
        """First names of namespaces that were slots: taking them away is not on the way of whoever waits."""

    @property
    def uplink(self) -> Uplink | None:
        return self._settings.uplink

    async def open(self) -> None:
        """Make the hub and its uplink, or find those that are there, and remove slots that an earlier daemon left.

        Raises:
            HostUnfit: the kernel or the host's networks do not allow it.
        """
        name = hub_name(self._tag)
        if (link := self._settings.uplink) is not None:
            await uplink.on_host(link, lambda: uplink.check_host(link))
        empty = Ledger(supernet=self._settings.supernet, block_prefix=self._settings.block_prefix)
        for left in namespaces.list_names(slot_prefix(self._tag)):
            await namespaces.delete(left)
        with contextlib.suppress(Conflict):  # it outlived an earlier daemon
            await namespaces.create(name, lambda: None, discard=lambda _: None)
        self._hub = await namespaces.enter(name, lambda: Hub(name, empty), discard=Hub.close)
        await self._with_hub(lambda hub: hub.remove_slots())
        # What an earlier daemon has led to the world goes on without a gap.
        if await self._with_hub(lambda hub: hub.has_uplink()):
            self._linked.set()
        await self.refresh()
        asyncio.get_running_loop().add_reader(self._hub.events, self._packets_waiting)
        self._pool.start()

    async def close(self) -> None:
        """Let go of everything; machines stay connected. With none left, nothing is left of the hub either."""
        await self._pool.close()
        await self._forget_claimed()
        for connection in list(self._connections.values()):
            await connection.close()
        self._connections.clear()
        for reserved in self._reserved.values():
            await on_own_thread("let go of a slot", reserved.ears.close)
        self._reserved.clear()
        hub, self._hub = self._hub, None
        if hub is None:
            return
        asyncio.get_running_loop().remove_reader(hub.events)
        self._hub_thread.close()
        is_idle = not hub.ledger.leases
        hub.close()
        if is_idle:
            await self.remove()

    async def remove(self) -> None:
        """Remove hub, uplink and slots, whoever made them; machines' namespaces are left to ``teardown``."""
        link = self._settings.uplink
        if link is not None:
            await uplink.on_host(link, lambda: uplink.disconnect_host(link))
        for name in {hub_name(self._tag), *namespaces.list_names(slot_prefix(self._tag))}:
            await namespaces.delete(name)

    async def refresh(self) -> None:
        """See to the uplink and the host's addresses anew; whenever those have changed."""
        link = self._settings.uplink
        hub = self._opened()
        reach = Reach(has_uplink=False)
        if link is not None and self._linked.is_set():
            host = await uplink.on_host(link, lambda: uplink.connect_host(link, hub.descriptor))
            await namespaces.enter(hub_name(self._tag), lambda: uplink.connect_hub(link), discard=lambda _: None)
            reach = Reach(has_uplink=True, host=(*host, link.network))
        await self._with_hub(lambda hub: hub.lead_to(reach))

    async def setup(self, sandbox_id: str, *, owner: str, name: str, policy: Policy) -> tuple[int, IPv4Address]:
        """Connect a new machine; gives the TAP's descriptor, the caller's from now on, and its address.

        Raises:
            Conflict: it has been set up already.
            Unavailable: there are no addresses left.
        """
        space = namespace_name(self._tag, sandbox_id)
        check_owner(owner)
        if sandbox_id in self._connections:
            raise Conflict("the sandbox is connected already", details=sandbox_id)
        await self._link_for(policy)
        taken = self._pool.take() or await self._make_slot(space)
        try:
            lease = await self._with_hub(
                lambda hub: self._claim(hub, taken, space, Occupant(sandbox_id, owner, policy))
            )
            self._connect(lease, name, policy, taken.ears)
        except BaseException as error:
            is_ours = not isinstance(error, Conflict)
            await until_done(asyncio.ensure_future(self._undo(taken, sandbox_id if is_ours else None)))
            raise
        return taken.tap_fd, lease.address

    async def reserve(self, sandbox_id: str) -> int:
        """Furnish a machine that is nobody's yet; gives the TAP's descriptor, the caller's from now on.

        Nothing leads out of it until ``connect``.

        Raises:
            Conflict: there is one of this id.
        """
        taken = await self._make_slot(namespace_name(self._tag, sandbox_id))
        self._reserved[sandbox_id] = taken
        return taken.tap_fd

    async def connect(self, sandbox_id: str, *, owner: str, name: str, policy: Policy) -> IPv4Address:
        """Give a reserved machine to an owner, from its next packet on; gives its address. About 1 ms.

        Whatever fails, the machine is left without a way out, for ``teardown``.

        Raises:
            NotFound: it was not reserved.
            Unavailable: there are no addresses left.
        """
        check_owner(owner)
        taken = self._reserved.pop(sandbox_id, None)
        if taken is None:
            raise NotFound("no network was made ahead for the sandbox", details=sandbox_id)
        try:
            await self._link_for(policy)
            occupant = Occupant(sandbox_id, owner, policy)
            lease = await self._with_hub(lambda hub: self._claim(hub, taken, taken.namespace, occupant))
            self._connect(lease, name, policy, taken.ears)
        except BaseException:
            self._reserved[sandbox_id] = taken
            await until_done(asyncio.ensure_future(self.teardown(sandbox_id)))
            raise
        return lease.address

    async def adopt(self, sandbox_id: str, *, name: str, policy: Policy) -> IPv4Address:
        """Take over a machine that an earlier daemon connected; gives its address. Its policy is put into force anew
        only where it is another, so that its connections go on.

        Raises:
            NotFound: it is not connected.
        """
        lease = self._opened().ledger.leases.get(sandbox_id)
        space = namespace_name(self._tag, sandbox_id)
        if lease is None or not lease.owner:
            raise NotFound("the sandbox has no network to be found", details=sandbox_id)
        try:
            ears = await namespaces.enter(space, lambda: slot.open_ears(self._plan), discard=slot.Ears.close)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EADDRNOTAVAIL):  # no namespace, or its TAP went with its VMM
                raise
            raise NotFound("the sandbox has no network to be found", details=space) from error
        connection = self._connect(lease, name, policy, ears)
        await self._link_for(policy)
        wanted = rules.table_comment(self._settings.supernet, policy)
        if await on_own_thread(f"adopt {space}", connection.rules_in_force) != wanted:
            await self.apply(sandbox_id, policy)
        return lease.address

    async def teardown(self, sandbox_id: str) -> None:
        """Disconnect a machine, whoever connected it and in whatever state; its namespace is the caller's to remove."""
        connection = self._connections.pop(sandbox_id, None)
        if connection is not None:
            await connection.close()
        reserved = self._reserved.pop(sandbox_id, None)
        if reserved is not None:
            await on_own_thread("let go of a slot", reserved.ears.close)
        await self._forget_claimed()
        if self._hub is not None:
            await self._with_hub(lambda hub: hub.unplug(sandbox_id))

    async def traffic(self) -> Mapping[str, netlink.LinkTraffic]:
        """Tell what connected machines have received and sent, by sandbox."""
        return await self._with_hub(Hub.traffic)

    async def apply(self, sandbox_id: str, policy: Policy) -> None:
        """Put another policy into force for a machine.

        Raises:
            NotFound: it is not connected.
            OSError: the kernel refused; what it refused of the policy is as it was.
        """
        connection = self.connection(sandbox_id)
        await self._link_for(policy)
        await self._with_hub(lambda hub: hub.bound_download(connection.lease, policy))
        await connection.apply(policy)
        log.debug("egress policy in force", sandbox=sandbox_id, base=policy.base.value)

    def connection(self, sandbox_id: str) -> Connection:
        """Give a connected machine.

        Raises:
            NotFound: it is not connected.
        """
        connection = self._connections.get(sandbox_id)
        if connection is None:
            raise NotFound("the sandbox is connected to no network", details=sandbox_id)
        return connection

    def address(self, sandbox_id: str) -> IPv4Address | None:
        """Tell the address of a connected machine; None of any other."""
        connection = self._connections.get(sandbox_id)
        return None if connection is None else connection.lease.address

    def sandboxes(self) -> set[str]:
        """Tell the sandboxes that have an address, those an earlier daemon left included."""
        return set() if self._hub is None else set(self._hub.ledger.leases)

    async def slots_ready(self) -> None:
        """Wait until all slots are made."""
        await self._pool.filled()

    async def _link_for(self, policy: Policy) -> None:
        """Link the hub to the host before the first policy that leads there is put into force."""
        if self._linked.is_set() or self._settings.uplink is None or not policy.reaches_out:
            return
        async with self._linking:
            if self._linked.is_set():
                return
            self._linked.set()
            try:
                await self.refresh()
            except BaseException:
                self._linked.clear()
                raise
            log.info("linked to the host", link=self._settings.uplink.link, network=str(self._settings.uplink.network))

    def _claim(self, hub: Hub, taken: Slot, space: str, occupant: Occupant) -> Lease:
        """Turn a slot into a machine's network; blocking. Its rules come before its way out."""
        if taken.namespace != space:
            namespaces.name_also(taken.namespace, space)
            self._claimed.append(taken.namespace)
        hub.unplug(occupant.sandbox_id)  # of a machine that a crash interrupted
        lease = hub.lease(occupant.sandbox_id, occupant.owner)
        table = [] if occupant.policy == DEFAULT else self._table(occupant.policy, {})
        slot.connect(taken, lease, occupant.policy, table)
        hub.plug(taken.port_index, lease, occupant.policy)
        return lease

    def _connect(self, lease: Lease, name: str, policy: Policy, ears: slot.Ears) -> Connection:
        connection = Connection(
            lease=lease,
            name=name,
            policy=policy,
            plan=self._plan,
            ears=ears,
            neighbours=self._households.setdefault(lease.owner, {}),
            table=self._table,
            tell=self._settings.tell,
        )
        connection.start(self._upstream, self._memories.setdefault(lease.owner, Memory()))
        self._connections[lease.sandbox_id] = connection
        return connection

    def _table(self, policy: Policy, bound: Mapping[IPv4Address, int]) -> list[Command]:
        return rules.machine_rules(self._plan, self._settings.supernet, policy, bound)

    async def _make_slot(self, space: str | None = None) -> Slot:
        """Make a slot in a namespace of this name, or of one of its own."""
        await self._forget_claimed()
        token = secrets.token_hex(4)
        name = slot_prefix(self._tag) + token if space is None else space
        hub = self._opened().descriptor
        port = SLOT_PORT_PREFIX + token

        def furnish() -> Slot:
            return slot.furnish_slot(self._plan, self._settings.supernet, namespace=name, port=port, hub=hub)

        return await namespaces.create(name, furnish, discard=Slot.close)

    async def _forget_claimed(self) -> None:
        while self._claimed:
            await namespaces.delete(self._claimed.pop())

    async def _discard(self, unused: Slot) -> None:
        await on_own_thread("discard a slot", unused.close)
        if unused.namespace.startswith(slot_prefix(self._tag)):
            await namespaces.delete(unused.namespace)

    async def _undo(self, taken: Slot, sandbox_id: str | None) -> None:
        """Take back what ``setup`` did; without ``sandbox_id`` the name was another's."""
        if sandbox_id is not None:
            await self.teardown(sandbox_id)
            await namespaces.delete(namespace_name(self._tag, sandbox_id))
        await self._discard(taken)

    async def _with_hub(self, work: Callable[[Hub], T]) -> T:
        """Run blocking work on the hub, on a thread, one at a time."""
        hub = self._opened()
        return await self._hub_thread.run(lambda: work(hub))

    def _opened(self) -> Hub:
        if self._hub is None:
            raise AssertionError("the fabric is not open")
        return self._hub

    def _packets_waiting(self) -> None:
        hub = self._opened()
        for packet in hub.events.read():
            lease = hub.ledger.at(packet.source)
            connection = None if lease is None else self._connections.get(lease.sandbox_id)
            if connection is not None:
                connection.told(packet)
