"""The owners' networks of a daemon: what its settings make of them, and how long they are open."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import structlog

from hearth.config import Settings
from hearth.control.background import Background
from hearth.control.net_mode import NetMode, choose, wire_of
from hearth.engine.local.engine import LocalEngine
from hearth.errors import InvalidInput
from hearth.host import namespaces
from hearth.network.connection import EventSink
from hearth.network.fabric import FabricSettings
from hearth.network.machine import MachineNetwork
from hearth.network.plan import uplink_name
from hearth.network.policy import Base
from hearth.network.uplink import Uplink, uplink_network
from hearth.network.upstream import Opener, Server, open_here, parse_server, servers_in
from hearth.network.user import UserNetwork
from hearth.network.watch import watch_addresses

log = structlog.get_logger(__name__)

RESOLVER_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
"""The second one has the servers behind systemd-resolved, which is on the loopback."""
NAMESPACE = "netns:"


def make_network(tag: str, settings: Settings, tell: EventSink, machines: Path) -> MachineNetwork:
    """Give the network of the machines in the directory ``machines``; the development engine's have none.

    Raises:
        InvalidInput: names the setting at fault.
        HostUnfit: this process cannot make the networks that were asked for.
    """
    if settings.engine == LocalEngine.name:
        return MachineNetwork(tag)
    if settings.net_default not in tuple(Base):
        raise _invalid("net_default", settings.net_default, "use deny or public")
    if choose(settings) is NetMode.USER:
        return UserNetwork(tag, machines, wire=wire_of(machines.parent))
    uplink = _uplink(tag, settings.uplink)
    fabric = FabricSettings(
        uplink=uplink,
        servers=() if uplink is None else _servers(settings),
        open_socket=_opener(uplink),
        slots=settings.network_slots,
        tell=tell,
    )
    return MachineNetwork(tag, fabric=fabric)


@contextlib.asynccontextmanager
async def opened(network: MachineNetwork) -> AsyncIterator[None]:
    """Keep the networks open for the length of the context; machines stay connected at its end.

    Raises:
        HostUnfit: the kernel or the host's networks do not allow it.
    """
    if not network.connects:
        yield
        return
    fabric, background = network.fabric, Background()
    try:
        await fabric.open()
        if fabric.uplink is not None:
            background.start("host addresses", watch_addresses(fabric.uplink, fabric.refresh))
        yield
    finally:
        await background.end()
        await fabric.close()


def servers_of_host() -> tuple[Server, ...]:
    """Tell the DNS servers that this host asks, without those on its loopback."""
    for path in RESOLVER_FILES:
        with contextlib.suppress(OSError):
            if found := servers_in(path.read_text()):
                return tuple(found)
    return ()


def _uplink(tag: str, said: str) -> Uplink | None:
    if said == "none":
        return None
    make = functools.partial(Uplink, link=uplink_name(tag), network=uplink_network(tag))
    if said == "host":
        return make()
    name = said.removeprefix(NAMESPACE)
    if name == said or not name or "/" in name or name.startswith("."):
        raise _invalid("uplink", said, "use host, none or netns:NAME, the name of a network namespace")
    if name not in namespaces.list_names(name):
        raise _invalid("uplink", said, "make that namespace first; 'ip netns list' shows those there are")
    return make(namespace=name)


def _servers(settings: Settings) -> tuple[Server, ...]:
    if settings.dns_servers:
        return tuple(parse_server(text) for text in settings.dns_servers)
    found = servers_of_host()
    if not found:
        log.warning("sandboxes cannot ask for names of the world: this host names no DNS server but its own loopback")
    return found


def _opener(uplink: Uplink | None) -> Opener:
    if uplink is None or uplink.namespace is None:
        return open_here
    name = uplink.namespace

    async def open_there(kind: socket.SocketKind) -> socket.socket:
        def make() -> socket.socket:
            made = socket.socket(socket.AF_INET, kind)
            made.setblocking(False)
            return made

        return await namespaces.enter(name, make, discard=socket.socket.close)

    return open_there


def _invalid(field: str, said: str, way_out: str) -> InvalidInput:
    return InvalidInput(f"invalid {field}", details=repr(said), resolution=way_out, field=field)
