"""An observer on the daemon's host: sees what leaves the target and what the host hands on; needs root there.

It listens in the target's namespace and in the one with the owners' bridges (docs/network.md draws them), on packet
sockets that every frame passes before the firewall when it comes and after it when it goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface

from hearth.attack.guest.packets import Seen, marks_in, read_frame
from hearth.attack.model import Flow, Passage
from hearth.host import namespaces
from hearth.host.netlink import RouteSocket

PREFIX = "hearth-"
HUB = ".hub"
TAP = "tap0"
EVERY_PROTOCOL = 3
BUFFER_BYTES = 16 << 20
MOST_FLOWS = 50_000
MOST_ADDRESSES = 8
UPLINK_PREFIX = 30
"""Length of the network between hub and host (docs/network.md)."""
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_STATISTICS = 263, 6
FRAMES_AT_ONCE = 500
PROTOCOLS = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp"}


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a sandbox's networks are on this host: names of namespaces, and of its port among the bridges."""

    machine: str
    hub: str
    port: str


def find_place(sandbox_id: str, address: str) -> Place | str:
    """Find a sandbox's namespaces on this host, or say why there is nothing to observe."""
    if os.geteuid() != 0:
        return "observing needs root on the daemon's host"
    for name in namespaces.list_names(PREFIX):
        if name.endswith(f"-{sandbox_id}"):
            hub = name.removesuffix(f"-{sandbox_id}") + HUB
            if hub in namespaces.list_names(PREFIX):
                return Place(machine=name, hub=hub, port=f"m{int(IPv4Address(address)):08x}")
    return "the daemon's namespaces are not on this host"


async def host_addresses(place: Place) -> tuple[str, ...]:
    """Tell what no sandbox may reach of the host.

    That is both ends of its link to the owners' networks, where there is one, the bridges' addresses, and those of the
    namespace that they are linked to, if it is this process's own.
    """

    def look() -> list[IPv4Interface]:
        with RouteSocket() as route:
            return sorted(each for each in route.addresses() if not each.ip.is_loopback)

    between = await namespaces.enter(place.hub, look, discard=lambda _: None)
    uplinks = [each for each in between if each.network.prefixlen == UPLINK_PREFIX]
    found = [each.network.network_address + 1 for each in uplinks]
    found += [each.ip for each in between]
    if not uplinks or _is_linked_here(place):
        found += [each.ip for each in look()]
    return tuple(dict.fromkeys(map(str, found)))[:MOST_ADDRESSES]


def _is_linked_here(place: Place) -> bool:
    with RouteSocket() as route:
        return any(link.name == place.hub.removesuffix(HUB) for link in route.links())


@dataclass(kw_only=True)
class Observer:
    """Collects; ``passage`` gives what was seen, None if frames were lost."""

    run: str
    place: Place
    machine: socket.socket
    hub: socket.socket
    left: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)
    flows_left: set[Flow] = field(default_factory=set)
    flows_passed: set[Flow] = field(default_factory=set)
    lost: int = 0

    def read_machine(self) -> None:
        """Take what waits in the target's namespace."""
        for frame, link, is_outgoing in _frames(self.machine):
            if link == TAP and not is_outgoing:
                self._note(frame, self.left, self.flows_left)

    def read_hub(self) -> None:
        """Take what waits among the bridges: what leaves by any link but the target's own was handed on."""
        for frame, link, is_outgoing in _frames(self.hub):
            if is_outgoing and link != self.place.port:
                self._note(frame, self.passed, self.flows_passed)

    def finish(self) -> Passage | None:
        """Take what still waits, and give all of it."""
        for made, read in ((self.machine, self.read_machine), (self.hub, self.read_hub)):
            for _ in range(MOST_FLOWS // FRAMES_AT_ONCE):
                read()
            _, dropped = struct.unpack("II", made.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
            self.lost += dropped
        if self.lost:
            return None
        return Passage(
            left=frozenset(self.left),
            passed=frozenset(self.passed),
            flows_left=frozenset(self.flows_left),
            flows_passed=frozenset(self.flows_passed),
        )

    def _note(self, frame: bytes, marks: set[str], flows: set[Flow]) -> None:
        seen = read_frame(frame)
        if seen.is_refusal:
            return
        marks |= marks_in(frame, self.run)
        flow = flow_of(seen)
        if flow is not None and len(flows) < MOST_FLOWS:
            flows.add(flow)


def flow_of(seen: Seen) -> Flow | None:
    """Give where a packet goes; None where it has no port."""
    protocol = PROTOCOLS.get(seen.protocol)
    if protocol is None or not seen.destination_port:
        return None
    return (protocol, seen.destination, seen.destination_port)


@contextlib.asynccontextmanager
async def observing(run: str, place: Place, *, buffer_bytes: int = BUFFER_BYTES) -> AsyncIterator[Observer]:
    """Watch as long as the context lasts; more than ``buffer_bytes`` of frames between two looks are lost."""
    async with contextlib.AsyncExitStack() as undo:
        sockets = []
        for space in (place.machine, place.hub):
            made = await namespaces.enter(space, lambda: _listen(buffer_bytes), discard=socket.socket.close)
            undo.callback(made.close)
            sockets.append(made)
        observer = Observer(run=run, place=place, machine=sockets[0], hub=sockets[1])
        loop = asyncio.get_running_loop()
        for made, read in zip(sockets, (observer.read_machine, observer.read_hub), strict=True):
            loop.add_reader(made, read)
            undo.callback(loop.remove_reader, made)
        yield observer


def _listen(buffer_bytes: int) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer_bytes)
    return made


def _frames(made: socket.socket) -> list[tuple[bytes, str, bool]]:
    """Take some of the frames that wait: bytes, link, and whether they leave by it."""
    found = []
    with contextlib.suppress(BlockingIOError):
        for _ in range(FRAMES_AT_ONCE):
            frame, sender = made.recvfrom(65_535)
            found.append((frame, sender[0], sender[2] == socket.PACKET_OUTGOING))
    return found
