"""Which address which sandbox has: a pure value and the two functions that change it.

An owner has blocks of the supernet, one bridge each, and gets another block when the last one is full: a bridge takes
1023 links, and a block holds no more. Where a search begins follows from the owner's and the sandbox's name, so both
mostly find the addresses they had before, without any record: what is in use is read from the kernel's links.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from hearth.errors import InvalidInput, Unavailable

WIDEST_BLOCK = 22
"""1024 addresses: a bridge takes 1023 links (BR_MAX_PORTS, net/bridge/br_private.h)."""
NARROWEST_BLOCK = 29
SUPERNET = IPv4Network("100.64.0.0/10")
"""Shared address space (RFC 6598): 4096 blocks. It is seen by sandboxes only, never by the host's routes."""


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The address of a sandbox among those of its owner."""

    sandbox_id: str
    owner: str
    address: IPv4Address
    block: IPv4Network

    @property
    def gateway(self) -> IPv4Address:
        return gateway_of(self.block)


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Who has what. ``blocks`` name their owner, ``leases`` are kept by sandbox; the rest follows from those."""

    supernet: IPv4Network = SUPERNET
    block_prefix: int = WIDEST_BLOCK
    blocks: Mapping[IPv4Network, str] = field(default_factory=dict)
    leases: Mapping[str, Lease] = field(default_factory=dict)
    _holders: Mapping[int, str] = field(default_factory=dict)
    """Address as a number → sandbox: comparing thousands of addresses would take longer than all the rest."""
    _counts: Mapping[int, int] = field(default_factory=dict)
    """First address of a block as a number → its leases."""

    def __post_init__(self) -> None:
        if not max(WIDEST_BLOCK, self.supernet.prefixlen) <= self.block_prefix <= NARROWEST_BLOCK:
            raise InvalidInput(
                "invalid block size for sandboxes' addresses",
                details=f"/{self.block_prefix} in {self.supernet}",
                resolution=f"use /{WIDEST_BLOCK} to /{NARROWEST_BLOCK}, inside the supernet",
                field="block_prefix",
            )

    def holding(self, blocks: Mapping[IPv4Network, str], leases: Iterable[Lease]) -> Ledger:
        """Give an empty ledger's successor that holds what was found to be in use."""
        ledger = replace(self, blocks=dict(blocks))
        for lease in leases:
            ledger = ledger._with(lease)
        return ledger

    def allocate(self, sandbox_id: str, owner: str) -> tuple[Ledger, Lease]:
        """Give the sandbox an address; one that has an address already keeps it.

        Raises:
            InvalidInput: it belongs to another owner.
            Unavailable: the supernet is used up.
        """
        known = self.leases.get(sandbox_id)
        if known is not None:
            if known.owner != owner:
                raise InvalidInput("the sandbox's address belongs to another owner", details=sandbox_id, field="owner")
            return self, known
        for block in self.blocks_of(owner):
            address = self._first_free(block, sandbox_id)
            if address is not None:
                break
        else:
            block = self._new_block(owner)
            address = self._first_free(block, sandbox_id)
        if address is None:
            raise AssertionError("a new block has room")
        lease = Lease(sandbox_id=sandbox_id, owner=owner, address=address, block=block)
        return self._with(lease), lease

    def release(self, sandbox_id: str) -> Ledger:
        """Forget the sandbox's address, and the block that this was the last one of; none is fine."""
        lease = self.leases.get(sandbox_id)
        if lease is None:
            return self
        leases, holders = dict(self.leases), dict(self._holders)
        del leases[sandbox_id], holders[int(lease.address)]
        first = int(lease.block.network_address)
        counts = {**self._counts, first: self._counts[first] - 1}
        blocks = dict(self.blocks)
        if not counts[first]:
            blocks.pop(lease.block, None)
            del counts[first]
        return replace(self, leases=leases, blocks=blocks, _holders=holders, _counts=counts)

    def blocks_of(self, owner: str) -> list[IPv4Network]:
        """Tell an owner's blocks, in the order of their addresses."""
        return sorted(block for block, name in self.blocks.items() if name == owner)

    def at(self, address: IPv4Address) -> Lease | None:
        """Tell whose address this is."""
        holder = self._holders.get(int(address))
        return None if holder is None else self.leases[holder]

    def _with(self, lease: Lease) -> Ledger:
        first = int(lease.block.network_address)
        return replace(
            self,
            blocks=self.blocks if lease.block in self.blocks else {**self.blocks, lease.block: lease.owner},
            leases={**self.leases, lease.sandbox_id: lease},
            _holders={**self._holders, int(lease.address): lease.sandbox_id},
            _counts={**self._counts, first: self._counts.get(first, 0) + 1},
        )

    def _first_free(self, block: IPv4Network, sandbox_id: str) -> IPv4Address | None:
        first, count = int(gateway_of(block)) + 1, block.num_addresses - 3
        for place in _from(sandbox_id, count):
            if first + place not in self._holders:
                return IPv4Address(first + place)
        return None

    def _new_block(self, owner: str) -> IPv4Network:
        count = 1 << (self.block_prefix - self.supernet.prefixlen)
        size = 1 << (32 - self.block_prefix)
        base = int(self.supernet.network_address)
        for place in _from(owner, count):
            block = IPv4Network((base + place * size, self.block_prefix))
            if block not in self.blocks:
                return block
        raise Unavailable(
            "no addresses are left for another owner",
            details=f"all {count} blocks of {self.supernet} are in use",
            resolution="destroy sandboxes, or configure a larger supernet",
        )


def gateway_of(block: IPv4Network) -> IPv4Address:
    """Tell the address of the block's bridge: its first."""
    return block.network_address + 1


def mac_of(address: IPv4Address) -> str:
    """Tell the MAC address that goes with an address, whoever has it.

    A neighbour entry is right even when the address has changed hands meanwhile: there is nothing to flush.
    """
    return "02:68:" + ":".join(f"{byte:02x}" for byte in address.packed)


def _from(name: str, count: int) -> Iterator[int]:
    """Give all places from 0 to ``count`` - 1, beginning with the one that ``name`` stands for."""
    start = zlib.crc32(name.encode()) % count
    return ((start + step) % count for step in range(count))
