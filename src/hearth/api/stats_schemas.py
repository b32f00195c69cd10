"""What sandboxes, and the daemon as a whole, use of their host. Sizes in bytes, times in seconds."""

from __future__ import annotations

from datetime import datetime

from msgspec import Struct

from hearth.api.schemas import Heat


class SandboxStats(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a sandbox has used, as it was read at ``sampled_at``. What cannot be told is left out.

    CPU time and memory are those of its process, guest and VMM together, since that began: a wake from disk begins
    anew, and one on disk has none. ``memory_unique_bytes`` would be free if it went, swap included;
    ``memory_shared_bytes`` others use as well, such as the memory of a template. ``disk_bytes`` is what its own files
    take, without volumes. The network's figures are from the sandbox's side, since it was last connected.
    """

    id: str
    name: str
    state: str
    heat: Heat
    cpus: int
    memory_mb: int
    sampled_at: datetime
    cpu_s: float | None = None
    memory_unique_bytes: int | None = None
    memory_shared_bytes: int | None = None
    memory_swapped_bytes: int | None = None
    disk_bytes: int | None = None
    net_received_bytes: int | None = None
    net_sent_bytes: int | None = None
    net_received_packets: int | None = None
    net_sent_packets: int | None = None


class SandboxStatsList(Struct, frozen=True, kw_only=True):
    """One page; ``next_cursor`` is absent on the last one."""

    items: list[SandboxStats]
    next_cursor: str | None = None


class SandboxCounts(Struct, frozen=True, kw_only=True):
    """How many sandboxes there are, by how much of them is there."""

    hot: int
    warm: int
    cold: int


class HostStats(Struct, frozen=True, kw_only=True):
    """The host as administrators see it; ``load_1m`` is the load average of a minute, of ``cpus``."""

    cpus: int
    load_1m: float
    memory_total_bytes: int
    memory_available_bytes: int
    swap_free_bytes: int
    disk_total_bytes: int
    disk_free_bytes: int
    pool_ready: int
    pool_waiting: int


class DaemonStats(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The daemon at a glance: the caller's sandboxes, of an administrator everybody's and the host."""

    version: str
    engine: str
    started_at: datetime
    uptime_s: float
    sandboxes: SandboxCounts
    host: HostStats | None = None
