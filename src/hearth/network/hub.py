"""The namespace with the owners' bridges, and what is known of it: all of it is read from its links, none is stored.

Being a namespace of its own, it has a firewall of its own and its own answer to br_netfilter: what the host's firewall
says, to bridges or to others, concerns nothing in here. Everything here is blocking, and called one at a time.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv4Network

from hearth.errors import HostUnfit
from hearth.host import links, namespaces, netlink
from hearth.host.conntrack import ConntrackSocket
from hearth.host.netlink import LinkTraffic, RouteSocket
from hearth.host.nft_log import LogSocket
from hearth.host.nft_socket import NftSocket
from hearth.network import rules
from hearth.network.addresses import Lease, Ledger, gateway_of, mac_of
from hearth.network.plan import bridge_name, named_address, port_name
from hearth.network.policy import Policy
from hearth.network.rules import DENIED_GROUP
from hearth.network.slot import FORWARDING, bound_rate, write_settings
from hearth.network.uplink import HUB_END, tolerating

SLOT_PORT_PREFIX = "s"
UNFILTERED = tuple((f"bridge/bridge-nf-call-{kind}", "0") for kind in ("iptables", "ip6tables", "arptables"))
"""br_netfilter, where it is loaded, would send what bridges carry through the firewall."""


@dataclass(frozen=True, kw_only=True)
class Reach:
    """What the hub leads to: ``host`` are addresses that no sandbox may reach; without an uplink there is no world."""

    has_uplink: bool
    host: tuple[IPv4Network, ...] = ()


class Hub:
    """The hub's sockets and what its links say. Made on a thread inside the hub; used from any."""

    def __init__(self, name: str, empty: Ledger) -> None:
        with contextlib.ExitStack() as undo:
            self.descriptor = os.open(namespaces.RUN / name, os.O_RDONLY | os.O_CLOEXEC)
            undo.callback(os.close, self.descriptor)
            write_settings((*FORWARDING, *UNFILTERED))
            self.route = undo.enter_context(RouteSocket())
            self.route.ask(netlink.bring_up(self.route.link("lo").index))
            self.events = LogSocket(DENIED_GROUP)
            undo.callback(self.events.close)
            self._nft = undo.enter_context(NftSocket())
            self._conntrack = ConntrackSocket()
            undo.callback(self._conntrack.close)
            self._empty = empty
            self._bridges: dict[IPv4Network, int] = {}
            self._reach = Reach(has_uplink=False)
            self.ledger = self._read()
            self._close = undo.pop_all()

    def close(self) -> None:
        """Let go of the hub; it stays as it is."""
        self._close.close()

    def has_uplink(self) -> bool:
        """Tell whether it is linked to the host."""
        return any(link.name == HUB_END for link in self.route.links())

    def lead_to(self, reach: Reach) -> None:
        """Write the rules for this reach."""
        self._reach = reach
        self._write_rules()

    def lease(self, sandbox_id: str, owner: str) -> Lease:
        """Give a sandbox an address, and its owner a bridge for it where there is none yet.

        Raises:
            Unavailable: there are no addresses left.
        """
        ledger, lease = self.ledger.allocate(sandbox_id, owner)
        if lease.block not in self.ledger.blocks:
            self._add_bridge(lease.block, owner)
            # The rules name the bridge before anything is plugged into it.
            self.ledger = replace(self.ledger, blocks=ledger.blocks)
            self._write_rules()
        self.ledger = ledger
        return lease

    def plug(self, index: int, lease: Lease, policy: Policy) -> None:
        """Put a machine's link on its owner's bridge; from now on it is found by its name."""
        if policy.download_bytes_per_s is not None:
            bound_rate(self.route, index, policy.download_bytes_per_s)
        bridge = self._bridges.get(lease.block) or self.route.link(bridge_name(lease.block)).index
        name = port_name(lease.address)
        self.route.ask(links.change_link(index, name=name, alias=lease.sandbox_id, master=bridge, up=True))

    def bound_download(self, lease: Lease, policy: Policy) -> None:
        """Bound what the hub hands to a machine, all of it together."""
        bound_rate(self.route, self.route.link(port_name(lease.address)).index, policy.download_bytes_per_s)

    def unplug(self, sandbox_id: str) -> None:
        """Take a machine's link away and forget its address and connections; a missing one is fine."""
        lease = self.ledger.leases.get(sandbox_id)
        if lease is None:
            return
        with tolerating(errno.ENODEV):
            self.route.ask(links.delete_link(self.route.link(port_name(lease.address)).index))
        self._conntrack.forget(lease.address)
        ledger = self.ledger.release(sandbox_id)
        if lease.block not in ledger.blocks:
            self._bridges.pop(lease.block, None)
            with tolerating(errno.ENODEV):
                self.route.ask(links.delete_link(self.route.link(bridge_name(lease.block)).index))
        is_smaller = ledger.blocks != self.ledger.blocks
        self.ledger = ledger
        if is_smaller:
            self._write_rules()

    def traffic(self) -> dict[str, LinkTraffic]:
        """Tell what each machine has received and sent since it was plugged in, by sandbox; one question for all."""
        leases = self.ledger.leases
        found = {link.alias: link.traffic for link in self.route.links() if link.alias in leases}
        # What comes in at this end is what the machine sent.
        return {
            sandbox_id: LinkTraffic(
                received_packets=seen.sent_packets,
                sent_packets=seen.received_packets,
                received_bytes=seen.sent_bytes,
                sent_bytes=seen.received_bytes,
            )
            for sandbox_id, seen in found.items()
        }

    def remove_slots(self) -> None:
        """Take away the links of slots that nobody claimed, of an earlier daemon's too."""
        for link in self.route.links():
            if link.name.startswith(SLOT_PORT_PREFIX):
                with tolerating(errno.ENODEV):
                    self.route.ask(links.delete_link(link.index))

    def _add_bridge(self, block: IPv4Network, owner: str) -> None:
        gateway = gateway_of(block)
        with tolerating(errno.EEXIST):
            self.route.ask(links.add_bridge(bridge_name(block), mac=mac_of(gateway)))
        index = self.route.link(bridge_name(block)).index
        with tolerating(errno.EEXIST):
            self.route.ask(netlink.add_address(index, IPv4Interface((gateway, block.prefixlen))))
        self.route.ask(links.change_link(index, alias=owner, up=True))
        self._bridges[block] = index

    def _write_rules(self) -> None:
        bridges = {bridge_name(block): owner for block, owner in self.ledger.blocks.items()}
        uplink = HUB_END if self._reach.has_uplink else None
        self._nft.commit(rules.hub_rules(bridges, uplink, self._empty.supernet, self._reach.host))

    def _read(self) -> Ledger:
        """Tell from the links who has what; a bridge without its owner's name was not finished and is made anew."""
        found = self.route.links()
        names = {link.index: link.name for link in found}
        size = self._empty.block_prefix
        blocks: dict[IPv4Network, str] = {}
        for link in found:
            address = named_address(link.name)
            if link.name.startswith("b") and address is not None and link.alias:
                blocks[IPv4Network((address, size), strict=False)] = link.alias
        leases: list[Lease] = []
        for link in found:
            address = named_address(link.name)
            if link.name.startswith("m") and address is not None and link.alias:
                block = IPv4Network((address, size), strict=False)
                if names.get(link.master) != bridge_name(block):
                    raise HostUnfit(
                        "the size of owners' blocks was changed while sandboxes run",
                        details=f"sandbox {link.alias} is on {names.get(link.master)}, not on {bridge_name(block)}",
                        resolution="set block_prefix back, or stop all sandboxes first",
                    )
                owner = blocks.get(block, "")
                leases.append(Lease(sandbox_id=link.alias, owner=owner, address=address, block=block))
        return self._empty.holding(blocks, leases)
