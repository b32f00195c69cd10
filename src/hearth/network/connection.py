"""A connected machine as the daemon knows it: its lease, its policy, its resolver, and what its guest tried."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, MutableMapping
from ipaddress import IPv4Address

import structlog

from hearth.host.nft import Command
from hearth.host.nft_log import LoggedPacket
from hearth.host.threads import on_own_thread
from hearth.network import rules
from hearth.network.addresses import Lease
from hearth.network.answers import Household
from hearth.network.bindings import Bindings
from hearth.network.bucket import Bucket
from hearth.network.events import EgressEvent, EventKind, protocol_name
from hearth.network.plan import AddressPlan
from hearth.network.policy import Policy
from hearth.network.resolver import NameService
from hearth.network.rules import EVENT_BURST, EVENTS_PER_S, SEEN_GROUP, TABLE
from hearth.network.slot import Ears, bound_upload
from hearth.network.upstream import Memory, Upstream

log = structlog.get_logger(__name__)

EventSink = Callable[[EgressEvent], None]


def log_event(event: EgressEvent) -> None:
    """Tell the log of what a guest tried."""
    words = {"sandbox": event.sandbox_id, "rule": event.rule, "host": event.host, "port": event.port}
    log.info("egress", kind=event.kind.value, address=str(event.address or ""), protocol=event.protocol, **words)


class Connection:
    """One machine among its owner's; made when it is connected or found again, closed before it is torn down.

    Args:
        ears: sockets inside its namespace, owned from now on.
        table: gives the rules for a policy and the addresses that its names stand for.
        neighbours: name → address of the owner's machines, shared by all of them.
    """

    def __init__(
        self,
        *,
        lease: Lease,
        name: str,
        policy: Policy,
        plan: AddressPlan,
        ears: Ears,
        neighbours: MutableMapping[str, IPv4Address],
        table: Callable[[Policy, Mapping[IPv4Address, int]], list[Command]],
        tell: EventSink,
    ) -> None:
        self.lease = lease
        self.name = name
        self._policy = policy
        self._ears = ears
        self._neighbours = neighbours
        self._table = table
        self._tell = tell
        self._guest = plan.guest.ip
        self._bindings = Bindings()
        self._names: NameService | None = None
        self._telling = Bucket(per_s=EVENTS_PER_S, burst=EVENT_BURST)

    @property
    def sandbox_id(self) -> str:
        return self.lease.sandbox_id

    @property
    def policy(self) -> Policy:
        return self._policy

    def start(self, upstream: Upstream, memory: Memory) -> None:
        """Begin to answer the guest's questions and to hear of what it tries."""
        self._neighbours[self.name] = self.lease.address
        self._names = NameService(self, self._ears.datagrams, self._ears.streams, upstream, memory)
        self._names.start()
        asyncio.get_running_loop().add_reader(self._ears.events, self._packets_waiting)

    async def close(self) -> None:
        """Stop both and let go of the sockets; what the firewall does stays as it is."""
        if self._neighbours.get(self.name) == self.lease.address:
            del self._neighbours[self.name]
        if self._names is not None:
            asyncio.get_running_loop().remove_reader(self._ears.events)
            await self._names.close()
        await on_own_thread(f"close {self.sandbox_id}", self._ears.close)

    def rename(self, name: str) -> None:
        """Let the owner's other sandboxes find this one by another name."""
        if self._neighbours.get(self.name) == self.lease.address:
            del self._neighbours[self.name]
        self.name = name
        self._neighbours[name] = self.lease.address

    async def apply(self, policy: Policy) -> None:
        """Put another policy into force at once, for connections that are open as well.

        Raises:
            OSError: the firewall could not be told; the former policy is still in force.
        """
        loop = asyncio.get_running_loop()
        commands = self._table(policy, self._bindings.opened_by(policy, loop.time()))
        rates = (policy.upload_bytes_per_s, self._policy.upload_bytes_per_s)

        def work() -> None:
            if rates[0] != rates[1]:
                bound_upload(self._ears, policy)
            self._ears.nft.commit(commands)

        await on_own_thread(f"policy of {self.sandbox_id}", work)
        self._policy = policy
        # What was bound meanwhile, between the reading above and the commit, is opened again.
        reopened = self._bindings.opened_by(policy, loop.time())
        if reopened:
            self._ears.nft.commit(rules.bind_names(reopened))

    def rules_in_force(self) -> str | None:
        """Tell which rules the firewall holds, by the comment on them; blocking."""
        return self._ears.nft.comment(TABLE)

    def household(self) -> Household:
        return Household(addresses=self._neighbours)

    def bind(self, name: str, addresses: Mapping[IPv4Address, int]) -> None:
        bound = self._bindings.add(name, addresses, asyncio.get_running_loop().time())
        if bound and self._policy.binds(name):
            self._ears.nft.commit(rules.bind_names(bound))

    def name_refused(self, name: str, rule: str) -> None:
        if self._telling.take(asyncio.get_running_loop().time()):
            self._tell(EgressEvent(sandbox_id=self.sandbox_id, kind=EventKind.NAME_DENIED, rule=rule, host=name))

    def told(self, packet: LoggedPacket) -> None:
        """Hand on what a rule told of a packet of this machine's, here or in the hub."""
        is_ours = packet.source in (self._guest, self.lease.address)
        address, port = (
            (packet.destination, packet.destination_port) if is_ours else (packet.source, packet.source_port)
        )
        if packet.prefix == "agent":
            port = packet.destination_port
        self._tell(
            EgressEvent(
                sandbox_id=self.sandbox_id,
                kind=EventKind.SEEN if packet.group == SEEN_GROUP else EventKind.DENIED,
                rule=packet.prefix,
                host=self._bindings.name_of(address),
                address=address,
                protocol=protocol_name(packet.protocol),
                port=port,
            )
        )

    def _packets_waiting(self) -> None:
        for packet in self._ears.events.read():
            self.told(packet)
