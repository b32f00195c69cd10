"""Bodies of sandboxes' networks: what one may reach, and what it tried. The conventions are those of ``schemas``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from hearth.bounds import FASTEST_BYTES_PER_S, MAX_NET_ENTRIES, SLOWEST_BYTES_PER_S

Base = Literal["deny", "public"]
Entries = Annotated[list[Annotated[str, Meta(min_length=1, max_length=255)]], Meta(max_length=MAX_NET_ENTRIES)]
Rate = Annotated[int, Meta(ge=SLOWEST_BYTES_PER_S, le=FASTEST_BYTES_PER_S)]


class NetPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a sandbox may reach; what is left out is as the daemon, the source or the present policy says.

    ``default``: the public world, or nothing of it. ``allow_hosts`` (``*.example.com`` is everything below) and
    ``allow_cidrs`` (IPv4, private ones too) are reachable besides. ``neighbours``: the owner's other sandboxes, both
    ways. ``audit`` lets through what ``default`` would refuse, and tells. Rates are bytes a second; null removes one.
    """

    default: Base | UnsetType = UNSET
    allow_hosts: Entries | UnsetType = UNSET
    allow_cidrs: Entries | UnsetType = UNSET
    neighbours: bool | UnsetType = UNSET
    audit: bool | UnsetType = UNSET
    upload_bytes_per_s: Rate | UnsetType | None = UNSET
    download_bytes_per_s: Rate | UnsetType | None = UNSET


class NetPolicyView(Struct, frozen=True, kw_only=True):
    """A whole policy; the fields are those of NetPolicy."""

    default: Base
    allow_hosts: list[str] = []
    allow_cidrs: list[str] = []
    neighbours: bool = True
    audit: bool = False
    upload_bytes_per_s: int | None = None
    download_bytes_per_s: int | None = None


class EgressAttempt(Struct, frozen=True, kw_only=True):
    """Something that a sandbox tried, ``count`` times.

    ``kind``: a connection was ``denied``, a name (``name_denied``), or one was let through and ``seen`` under audit.
    ``rule`` tells why; ``host`` is the name by which it came to the address, "" without one. ``port`` is 0 where there
    is none.
    """

    kind: str
    rule: str
    host: str
    address: str | None = None
    protocol: str
    port: int
    count: int
    first_at: datetime
    last_at: datetime


class EgressView(Struct, frozen=True, kw_only=True):
    """What a sandbox tried since the daemon started, the latest last.

    ``counts`` tells how often each rule decided; ``forgotten`` attempts are among ``counts`` alone. ``allow_list`` is
    the shortest policy that allows what was seen under audit, and nothing else of the world.
    """

    policy: NetPolicyView
    attempts: list[EgressAttempt]
    counts: dict[str, int]
    forgotten: int = 0
    allow_list: NetPolicyView
