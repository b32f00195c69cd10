"""What an order would come to, told before anything is done; and which orders can be seen to come to nothing."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

import structlog

from hearth.control.provisioning.order import AUTO, CLONE, COPY, ProvisionOrder
from hearth.control.provisioning.work import Tools
from hearth.errors import HearthError
from hearth.image.golden.base import Source
from hearth.image.golden.cache import other_type
from hearth.image.golden.choosing import open_source
from hearth.image.golden.entries import Facts
from hearth.image.golden.resolving import Resolved
from hearth.volume.golden.base import CloneAbility, too_small

log = structlog.get_logger(__name__)

LOOK_TIMEOUT_S = 5.0
"""For asking a source about an image that seems not to fit; who cannot be asked refuses nothing."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What an order would come to; sizes in bytes, None where nobody knows.

    ``estimate_s`` reckons with how fast images came and volumes were written here before; None before the first.
    """

    image_size_bytes: int
    virtual_size_bytes: int | None
    checksum: str | None
    is_cached: bool
    strategy: str
    why: str
    replaces: bool
    bytes_to_fetch: int
    bytes_to_write: int | None
    estimate_s: float | None


async def forecast(tools: Tools, order: ProvisionOrder, *, replaces: bool) -> Forecast:
    """Tell what a checked order would come to.

    Raises:
        InvalidInput: the image is here, and has another format or does not fit.
        SourceError family: its source cannot be asked.
    """
    source = open_source(tools.settings, order.image_url)
    try:
        resolved = await tools.cache.resolve(source, order.checksum)
        facts = await _facts(tools, resolved)
        _check(source, order, facts)
    finally:
        await source.close()
    virtual = None if facts is None else facts.virtual_size_bytes
    if virtual is None and order.image_type == "raw":
        virtual = resolved.head.size_bytes
        if virtual > order.size_bytes:
            raise too_small(order.size_bytes, virtual)
    ability = await tools.pools[order.pool].cloning(resolved.sha256 or None)
    clones = order.mode == CLONE or (order.mode == AUTO and ability.can_clone)
    to_fetch = 0 if facts is not None else resolved.head.size_bytes
    to_write = 0 if clones and ability.has_base else virtual
    return Forecast(
        image_size_bytes=resolved.head.size_bytes,
        virtual_size_bytes=virtual,
        checksum=resolved.sha256 or None,
        is_cached=facts is not None,
        strategy=CLONE if clones else COPY,
        why=_why(order, ability),
        replaces=replaces,
        bytes_to_fetch=to_fetch,
        bytes_to_write=to_write,
        estimate_s=tools.speeds.estimate_s(to_fetch, _data_bytes(to_write, facts, resolved)),
    )


async def refuse_what_cannot_fit(tools: Tools, order: ProvisionOrder) -> None:
    """Refuse an order whose image is in the cache and larger than the volume. Only where it seems so is its source
    asked whether it still has that image; where that cannot be told, the job will.

    Raises:
        InvalidInput: names ``volume_size_gb``.
    """
    source = open_source(tools.settings, order.image_url)
    try:
        if not any(
            entry.facts.url == source.url and entry.facts.virtual_size_bytes > order.size_bytes
            for entry in await tools.cache.list()
        ):
            return
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                facts = await _facts(tools, await tools.cache.resolve(source, order.checksum))
        except (HearthError, TimeoutError) as error:
            log.debug("whether an image fits is left to its job", url=source.url, why=str(error))
            return
        _check(source, order, facts)
    finally:
        await source.close()


async def _facts(tools: Tools, resolved: Resolved) -> Facts | None:
    lease = await tools.cache.lookup(resolved)
    with lease or contextlib.nullcontext():
        return None if lease is None else lease.facts


def _check(source: Source, order: ProvisionOrder, facts: Facts | None) -> None:
    if facts is None:
        return
    if facts.format != order.image_type:
        raise other_type(source.url, order.image_type, facts.format)
    if facts.virtual_size_bytes > order.size_bytes:
        raise too_small(order.size_bytes, facts.virtual_size_bytes)


def _data_bytes(to_write: int | None, facts: Facts | None, resolved: Resolved) -> int:
    """Give how much of what is to be written is no zeros, as far as anybody knows."""
    known = resolved.head.size_bytes if facts is None else facts.data_bytes or facts.size_bytes
    return known if to_write is None else min(to_write, known)


def _why(order: ProvisionOrder, ability: CloneAbility) -> str:
    if order.mode == COPY:
        return "a copy was asked for"
    return f"a clone was asked for; {ability.why}" if order.mode == CLONE else ability.why
