"""A stage for tests of networks: a namespace that plays the host, one that plays the world beyond it, and guests.

A guest is a namespace with the guest's end of the wire in it; frames are carried between its TAP and the machine's, as
a VMM would. Nothing here touches the namespace the tests run in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hearth.host import namespaces, netlink
from hearth.network.events import EgressEvent
from hearth.network.fabric import FabricSettings
from hearth.network.machine import MachineNetwork
from hearth.network.plan import PLAN, Link
from hearth.network.policy import DEFAULT, Policy
from hearth.network.uplink import Uplink, uplink_network

T = TypeVar("T")

HOST_ADDRESS = "203.0.113.1"
PUBLIC = ("9.9.9.9", "8.8.8.8", "1.2.3.4")
INSIDE = ("10.1.2.3", "192.168.7.7", "169.254.169.254", "168.63.129.16")
DNS_SERVER = "9.9.9.9"
PORT = 80
VNET_HEADER_BYTES = 10
PATIENCE_S = 120.0
"""For what is to be answered: on a loaded machine that takes as long as it takes."""
SILENCE_S = 1.0
"""For what nobody is to answer; the same way has to be seen to work afterwards, or the silence proves nothing."""


def ip(space: str, *words: str) -> str:
    return subprocess.run(["ip", "-n", space, *words], check=True, capture_output=True, text=True).stdout


def inside(space: str, *argv: str) -> str:
    """Run a program in a namespace and give what it says."""
    command = ["ip", "netns", "exec", space, *argv]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


async def within(space: str, work: Callable[[], T]) -> T:
    return await namespaces.enter(space, work, discard=lambda _: None)


@dataclass(kw_only=True)
class Guest:
    """The guest's side of a machine: ``space`` is its namespace, ``frames`` what came to it since."""

    link: Link
    space: str
    tap_fd: int
    frames: list[bytes] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.link.address)

    async def dial(self, address: str, port: int = PORT, *, wait_s: float = PATIENCE_S) -> str:
        """Tell how a TCP connection goes: what the other side said, ``refused``, ``prohibited`` or ``silence``."""

        def work() -> str:
            try:
                with socket.create_connection((address, port), wait_s) as stream:
                    stream.settimeout(wait_s)
                    return stream.recv(64).decode()
            except ConnectionRefusedError:
                return "refused"
            except ConnectionResetError:
                return "reset"
            except TimeoutError:
                return "silence"
            except OSError as error:
                return "prohibited" if error.errno in (113, 101) else f"errno {error.errno}"

        return await within(self.space, work)

    async def send(self, address: str, port: int = PORT, *, wait_s: float = PATIENCE_S) -> str:
        """Tell how a UDP datagram goes: the answer, ``prohibited`` or ``silence``."""

        def work() -> str:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
                datagrams.settimeout(wait_s)
                datagrams.connect((address, port))
                try:
                    datagrams.send(b"?")
                    return datagrams.recv(64).decode()
                except TimeoutError:
                    return "silence"
                except OSError as error:
                    return f"errno {error.errno}"

        return await within(self.space, work)

    def inject(self, frame: bytes) -> None:
        """Send an Ethernet frame as a guest's driver would."""
        os.write(self.link.tap_fd, bytes(VNET_HEADER_BYTES) + frame)

    async def serve(self, port: int, words: str, stack: contextlib.AsyncExitStack) -> None:
        """Answer TCP connections to a port of the guest, until the stack ends."""
        await serve(self.space, "172.16.0.2", port, words, stack)


async def serve(space: str, address: str, port: int, words: str, stack: contextlib.AsyncExitStack) -> None:
    """Say ``words`` to whoever connects, and echo until they end."""
    transports: set[asyncio.Transport] = set()

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            transports.add(transport)
            transport.write(words.encode())

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

        def connection_lost(self, error: Exception | None) -> None:
            transports.discard(self.transport)

    def listen() -> socket.socket:
        listener = socket.create_server((address, port))
        listener.setblocking(False)
        return listener

    server = await asyncio.get_running_loop().create_server(Echo, sock=await within(space, listen))

    async def end() -> None:
        server.close()
        for transport in list(transports):
            transport.abort()
        await asyncio.sleep(0)

    stack.push_async_callback(end)


async def echo_datagrams(space: str, address: str, port: int, stack: contextlib.AsyncExitStack) -> None:
    """Answer every datagram with ``echo``."""

    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(b"echo", addr)

    def listen() -> socket.socket:
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.setblocking(False)
        datagrams.bind((address, port))
        return datagrams

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, sock=await within(space, listen))
    stack.callback(transport.close)


@dataclass(kw_only=True)
class Stage:
    """Host, world, the networks of one daemon on that host, and the events it told of; ``pod`` is for somebody else."""

    tag: str
    host: str
    world: str
    pod: str
    stack: contextlib.AsyncExitStack
    settings: FabricSettings
    events: list[EgressEvent]
    told: asyncio.Event
    network: MachineNetwork

    async def guest(
        self, sandbox_id: str, owner: str = "ann", *, policy: Policy = DEFAULT, name: str | None = None
    ) -> Guest:
        """Set up a machine's network with a guest behind it that says its id on port 80."""
        link = await self.network.setup(sandbox_id, owner=owner, policy=policy, name=name)
        self.stack.push_async_callback(self._teardown, sandbox_id, link)
        guest = await plug_in(link, self.stack)
        await guest.serve(PORT, sandbox_id, self.stack)
        return guest

    async def event(self, matches: Callable[[EgressEvent], bool], wait_s: float = PATIENCE_S) -> EgressEvent:
        """Wait for an event."""
        async with asyncio.timeout(wait_s):
            while True:
                for event in self.events:
                    if matches(event):
                        return event
                self.told.clear()
                await self.told.wait()

    async def _teardown(self, sandbox_id: str, link: Link) -> None:
        await self.network.teardown(sandbox_id)
        with contextlib.suppress(OSError):
            os.close(link.tap_fd)


async def plug_in(link: Link, stack: contextlib.AsyncExitStack) -> Guest:
    """Put a guest behind a machine's TAP."""
    space = f"guest-{secrets.token_hex(4)}"

    def furnish() -> int:
        descriptor = netlink.open_tap("eth0")
        with netlink.RouteSocket() as route:
            index = route.link("eth0").index
            route.ask_all(
                netlink.bring_up(route.link("lo").index),
                netlink.bring_up(index, mac=PLAN.guest_mac),
                netlink.add_address(index, PLAN.guest),
                netlink.add_neighbour(index, PLAN.gateway.ip, PLAN.gateway_mac),
            )
        return descriptor

    tap_fd = await namespaces.create(space, furnish, discard=os.close)
    ip(space, "route", "add", "default", "via", str(PLAN.gateway.ip))
    guest = Guest(link=link, space=space, tap_fd=tap_fd)
    loop = asyncio.get_running_loop()

    def carry(source: int, target: int, keep: bool) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            while True:
                frame = os.read(source, 70_000)
                if keep:
                    guest.frames.append(frame[VNET_HEADER_BYTES:])
                os.write(target, frame)

    loop.add_reader(link.tap_fd, carry, link.tap_fd, tap_fd, True)
    loop.add_reader(tap_fd, carry, tap_fd, link.tap_fd, False)

    async def unplug() -> None:
        loop.remove_reader(link.tap_fd)
        loop.remove_reader(tap_fd)
        os.close(tap_fd)
        await namespaces.delete(space)

    stack.push_async_callback(unplug)
    return guest


@contextlib.asynccontextmanager
async def stage(*, slots: int = 0, block_prefix: int = 22, has_uplink: bool = True) -> AsyncIterator[Stage]:
    """Build host and world, and open a daemon's networks on that host."""
    tag = secrets.token_hex(4)
    host, world, pod = f"host-{tag}", f"world-{tag}", f"pod-{tag}"
    async with contextlib.AsyncExitStack() as stack:
        for space in (host, world, pod):
            await namespaces.create(space, lambda: None, discard=lambda _: None)
            stack.push_async_callback(namespaces.delete, space)
        _wire_up(host, world)
        for address in (*PUBLIC, *INSIDE):
            await serve(world, address, PORT, f"world {address}", stack)
        await serve(host, "0.0.0.0", PORT, "host", stack)
        told, events = asyncio.Event(), list[EgressEvent]()

        def tell(event: EgressEvent) -> None:
            events.append(event)
            told.set()

        async def open_socket(kind: socket.SocketKind) -> socket.socket:
            def make() -> socket.socket:
                made = socket.socket(socket.AF_INET, kind)
                made.setblocking(False)
                return made

            return await namespaces.enter(host, make, discard=socket.socket.close)

        settings = FabricSettings(
            block_prefix=block_prefix,
            uplink=Uplink(link=f"hearth-{tag}", network=uplink_network(tag), namespace=host) if has_uplink else None,
            servers=((DNS_SERVER, 53),),
            open_socket=open_socket,
            slots=slots,
            tell=tell,
        )
        network = MachineNetwork(tag, fabric=settings)
        await network.fabric.open()
        stack.push_async_callback(_close, network)
        yield Stage(
            tag=tag,
            host=host,
            world=world,
            pod=pod,
            stack=stack,
            settings=settings,
            events=events,
            told=told,
            network=network,
        )


async def _close(network: MachineNetwork) -> None:
    for sandbox_id in await network.list():
        await network.teardown(sandbox_id)
    await network.fabric.close()


def _wire_up(host: str, world: str) -> None:
    ip(host, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", world)
    for space in (host, world):
        ip(space, "link", "set", "lo", "up")
        ip(space, "link", "set", "eth0", "up")
    ip(host, "addr", "add", f"{HOST_ADDRESS}/24", "dev", "eth0")
    ip(world, "addr", "add", "203.0.113.254/24", "dev", "eth0")
    ip(host, "route", "add", "default", "via", "203.0.113.254")
    for address in (*PUBLIC, *INSIDE):
        ip(world, "addr", "add", f"{address}/32", "dev", "lo")
