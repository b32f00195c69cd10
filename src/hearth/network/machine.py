"""One namespace and one TAP per machine, the way to its agent, and for machines with an owner the way to others.

Nothing leads out of the namespace of a machine without an owner: no route, no forwarding, no IPv6. One with an owner
reaches that owner's others, and of the world what its policy says (``fabric``).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Protocol

import structlog

from hearth.errors import HearthError, NotFound
from hearth.host import namespaces, netlink
from hearth.network.fabric import Fabric, FabricSettings
from hearth.network.patience import Patience
from hearth.network.plan import PLAN, TAP_NAME, AddressPlan, Link, namespace_name, namespace_prefix
from hearth.network.policy import DEFAULT, Policy
from hearth.network.slot import lay_wire, write_settings

log = structlog.get_logger(__name__)

CLOSED = (
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv4/conf/all/forwarding", "0"),
)
"""Under /proc/sys/net. A new namespace copies the IPv4 settings of the host, which may well forward (ip-sysctl.rst,
devconf_inherit_init_net); ``all`` for IPv6 covers the links still to come."""


class AgentDialer(Protocol):
    """``hearth.guest.dial.Dialer`` by its shape."""

    async def connect(self, port: int) -> socket.socket: ...


class MachineNetwork:
    """The networks of all machines of one daemon.

    Args:
        tag: marks the daemon's namespaces among others on this host (``directory.load_tag``).
        fabric: how machines are connected to others; without it none is, and ``setup`` takes no owner.
    """

    def __init__(self, tag: str, *, plan: AddressPlan = PLAN, fabric: FabricSettings | None = None) -> None:
        self._tag = tag
        self._plan = plan
        self._fabric = None if fabric is None else Fabric(tag, plan, fabric)

    @property
    def fabric(self) -> Fabric:
        """What connects the machines; to be opened before the first of them, and closed at the end."""
        if self._fabric is None:
            raise AssertionError("this network connects no machines")
        return self._fabric

    @property
    def connects(self) -> bool:
        """True when machines with an owner reach others."""
        return self._fabric is not None

    @property
    def why_closed(self) -> str:
        """Say why machines reach nothing, where nothing connects them."""
        return "this daemon's engine connects no machines"

    @property
    def widest(self) -> Policy | None:
        """Tell the most open policy to be had where nothing is connected; None where policies mean nothing."""
        return None

    @property
    def resolvers(self) -> list[str]:
        """Tell the DNS servers of every guest: its gateway, where machines are connected."""
        return [str(self._plan.gateway.ip)] if self.connects else []

    def namespace(self, sandbox_id: str) -> str:
        """Name the sandbox's namespace, whether or not it exists."""
        return namespace_name(self._tag, sandbox_id)

    async def setup(
        self, sandbox_id: str, *, owner: str | None = None, name: str | None = None, policy: Policy = DEFAULT
    ) -> Link:
        """Make the sandbox's namespace with a TAP in it, addressed and up; the caller closes ``tap_fd``.

        Nothing is left behind by a failure or a cancellation.

        Args:
            owner: connects it to this owner's others; None to nothing at all.
            name: by which they find it; its id without one.
            policy: what it may reach from its first packet on.

        Raises:
            Conflict: it has been set up already.
            HostUnfit: namespaces or TAPs are not to be had.
            Unavailable: there are no addresses left.
        """
        space = self.namespace(sandbox_id)
        address: IPv4Address | None = None
        if owner is None:
            descriptor = await namespaces.create(space, lambda: furnish(self._plan), discard=os.close)
        else:
            descriptor, address = await self.fabric.setup(
                sandbox_id, owner=owner, name=name or sandbox_id, policy=policy
            )
        log.debug("network set up", sandbox=sandbox_id, namespace=space, address=str(address or ""))
        return self._link(space, descriptor, address)

    async def reserve(self, sandbox_id: str) -> Link:
        """Set up a machine that is nobody's yet, for ``connect``; the caller closes ``tap_fd``.

        Raises as ``setup``.
        """
        if self._fabric is None:
            return await self.setup(sandbox_id)
        space = self.namespace(sandbox_id)
        return self._link(space, await self._fabric.reserve(sandbox_id), None)

    async def connect(self, sandbox_id: str, *, owner: str, name: str, policy: Policy) -> None:
        """Give a reserved machine to an owner; without a fabric it stays connected to nothing.

        Raises:
            NotFound: it was not reserved.
            Unavailable: there are no addresses left.
            OSError: the kernel refused; nothing leads out of it.
        """
        if self._fabric is not None:
            await self._fabric.connect(sandbox_id, owner=owner, name=name, policy=policy)

    async def adopt(self, sandbox_id: str, *, name: str, policy: Policy) -> None:
        """Take over what an earlier daemon connected, under the policy it should have.

        A machine that cannot be brought under it loses its way out until it is started anew.
        """
        if self._fabric is None:
            return
        try:
            await self._fabric.adopt(sandbox_id, name=name, policy=policy)
        except NotFound as error:
            log.warning("no network to take over: it reaches nothing", sandbox=sandbox_id, error=str(error))
        except (HearthError, OSError) as error:
            log.error("its policy is not in force: it is cut off", sandbox=sandbox_id, error=str(error))
            await self._fabric.teardown(sandbox_id)

    async def apply(self, sandbox_id: str, policy: Policy) -> None:
        """Put another policy into force for a connected machine.

        Raises:
            NotFound: it is not connected.
            OSError: the kernel refused; what it refused is as it was.
        """
        await self.fabric.apply(sandbox_id, policy)

    async def restore(self, sandbox_id: str, policy: Policy) -> None:
        """Go back to a former policy, whatever of another is in force; if that is refused, too, cut the machine off."""
        try:
            await self.fabric.apply(sandbox_id, policy)
        except (HearthError, OSError) as error:
            log.error("its policy is not in force: it is cut off", sandbox=sandbox_id, error=str(error))
            await self.fabric.teardown(sandbox_id)

    def rename(self, sandbox_id: str, name: str) -> None:
        """Let a machine's neighbours find it by another name; one that is not connected has none."""
        with contextlib.suppress(NotFound):
            self.fabric.connection(sandbox_id).rename(name)

    async def traffic(self) -> Mapping[str, netlink.LinkTraffic]:
        """Tell what connected machines have received and sent since they were, by sandbox; nothing of any other.

        The way to the agent is another one and does not count.
        """
        return {} if self._fabric is None else await self._fabric.traffic()

    def address(self, sandbox_id: str) -> IPv4Address | None:
        """Tell a sandbox's address among its owner's; None for one that is not connected now."""
        return None if self._fabric is None else self._fabric.address(sandbox_id)

    async def teardown(self, sandbox_id: str) -> None:
        """Remove the sandbox's namespace, whoever made it and in whatever state; a missing one is fine.

        The TAP goes when the VMM has closed it, so end the VMM first.
        """
        if self._fabric is not None:
            await self._fabric.teardown(sandbox_id)
        await namespaces.delete(self.namespace(sandbox_id))
        log.debug("network torn down", sandbox=sandbox_id)

    async def list(self) -> set[str]:
        """Tell the ids of the sandboxes of which something is there, for sweeping what a crash left."""
        prefix = namespace_prefix(self._tag)
        named = {name.removeprefix(prefix) for name in namespaces.list_names(prefix)}
        return named if self._fabric is None else named | self._fabric.sandboxes()

    def _link(self, space: str, tap_fd: int, address: IPv4Address | None) -> Link:
        return Link(
            namespace=space,
            tap_fd=tap_fd,
            guest_ip=self._plan.guest.ip,
            prefix_length=self._plan.guest.network.prefixlen,
            gateway=self._plan.gateway.ip,
            mac=self._plan.guest_mac,
            address=address,
        )

    def dialer(self, sandbox_id: str, *, answers: bool = False) -> AgentDialer:
        """Give a way to the sandbox's agent; keep it, it learns how patient to be.

        Args:
            answers: the guest is up already, restored or adopted: what it does not answer at once it answers later.
        """
        patience = Patience().after_success() if answers else Patience()
        return NamespaceDialer(self.namespace(sandbox_id), str(self._plan.guest.ip), patience)


class NamespaceDialer:
    """Opens TCP connections to a guest from inside its namespace; a ``hearth.guest.dial.Dialer`` by its shape."""

    def __init__(self, namespace: str, address: str, patience: Patience) -> None:
        self._namespace = namespace
        self._address = address
        self._patience = patience

    async def connect(self, port: int) -> socket.socket:
        """Give a connected, non-blocking stream socket that the caller closes. One attempt of 50 ms to 2 s.

        Raises:
            OSError: the agent cannot be reached now; TimeoutError when nothing answered.
        """
        try:
            stream = await namespaces.connect_in(self._namespace, (self._address, port), self._patience.timeout_s)
        except OSError:
            self._patience = self._patience.after_failure()
            raise
        self._patience = self._patience.after_success()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream


def furnish(plan: AddressPlan) -> int:
    """Close the namespace of this thread to the outside, put the TAP in and give its descriptor; blocking, 0.5 ms."""
    write_settings(CLOSED)
    descriptor = netlink.open_tap(TAP_NAME)
    try:
        with netlink.RouteSocket() as route:
            lay_wire(route, plan)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
