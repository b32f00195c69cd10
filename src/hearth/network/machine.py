"""One namespace and one TAP per machine, and the way to its agent.

Nothing leads out of the namespace: no route, no forwarding, no IPv6. That is the closed default a policy later opens.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import structlog

from hearth.host import namespaces, netlink
from hearth.network.patience import Patience
from hearth.network.plan import PLAN, TAP_NAME, AddressPlan, Link, namespace_name, namespace_prefix

log = structlog.get_logger(__name__)

CLOSED = (
    ("ipv6/conf/all/disable_ipv6", "1"),
    ("ipv4/conf/all/forwarding", "0"),
)
"""Under /proc/sys/net. A new namespace copies the IPv4 settings of the host, which may well forward (ip-sysctl.rst,
devconf_inherit_init_net); ``all`` for IPv6 covers the links still to come."""


class MachineNetwork:
    """The networks of all machines of one daemon.

    Args:
        tag: marks the daemon's namespaces among others on this host (``directory.load_tag``).
    """

    def __init__(self, tag: str, *, plan: AddressPlan = PLAN) -> None:
        self._tag = tag
        self._plan = plan

    def namespace(self, sandbox_id: str) -> str:
        """Name the sandbox's namespace, whether or not it exists."""
        return namespace_name(self._tag, sandbox_id)

    async def setup(self, sandbox_id: str) -> Link:
        """Make the sandbox's namespace with a TAP in it, addressed and up; the caller closes ``tap_fd``.

        Nothing is left behind by a failure or a cancellation.

        Raises:
            Conflict: it has been set up already.
            HostUnfit: namespaces or TAPs are not to be had.
        """
        name = self.namespace(sandbox_id)
        descriptor = await namespaces.create(name, lambda: furnish(self._plan), discard=os.close)
        log.debug("network set up", sandbox=sandbox_id, namespace=name)
        return Link(
            namespace=name,
            tap_fd=descriptor,
            guest_ip=self._plan.guest.ip,
            prefix_length=self._plan.guest.network.prefixlen,
            gateway=self._plan.gateway.ip,
            mac=self._plan.guest_mac,
        )

    async def teardown(self, sandbox_id: str) -> None:
        """Remove the sandbox's namespace, whoever made it and in whatever state; a missing one is fine.

        The TAP goes when the VMM has closed it, so end the VMM first.
        """
        await namespaces.delete(self.namespace(sandbox_id))
        log.debug("network torn down", sandbox=sandbox_id)

    async def list(self) -> set[str]:
        """Tell the ids of the sandboxes of which something is there, for sweeping what a crash left."""
        prefix = namespace_prefix(self._tag)
        return {name.removeprefix(prefix) for name in namespaces.list_names(prefix)}

    def dialer(self, sandbox_id: str, *, answers: bool = False) -> NamespaceDialer:
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
    for setting, value in CLOSED:
        path = Path("/proc/sys/net", setting)
        if path.exists():  # a kernel without IPv6 has nothing to switch off
            path.write_text(value)
    descriptor = netlink.open_tap(TAP_NAME)
    try:
        tap = socket.if_nametoindex(TAP_NAME)
        with netlink.RouteSocket() as route:
            route.ask(netlink.bring_up(socket.if_nametoindex("lo")))
            route.ask(netlink.bring_up(tap, mac=plan.gateway_mac))
            route.ask(netlink.add_address(tap, plan.gateway))
            route.ask(netlink.add_neighbour(tap, plan.guest.ip, plan.guest_mac))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
