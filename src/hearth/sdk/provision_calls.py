"""The operations on volumes that are filled from golden images, as values; no I/O."""

from __future__ import annotations

from dataclasses import fields
from typing import TypedDict

from hearth.api.event_schemas import JobView
from hearth.api.image_operations import PREFETCH_IMAGE
from hearth.api.image_schemas import PrefetchImage
from hearth.api.operation import Operation
from hearth.api.provision_operations import (
    DELETE_CACHED,
    DELETE_PROVISIONED,
    GET_PROVISIONED,
    GROW_PROVISIONED,
    LIST_CACHED,
    LIST_PROVISIONED,
    PIN_CACHED,
    PROVISION,
)
from hearth.api.provision_schemas import (
    CachedImage,
    CachedImageList,
    GrowProvisioned,
    ListProvisioned,
    PinCached,
    Provision,
    ProvisionedList,
    ProvisionedVolume,
    ProvisionForecast,
    ProvisionStarted,
)
from hearth.api.schemas import Nothing
from hearth.sdk.call import LONG_S, Call, call_of

FORECAST: Operation[Provision, ProvisionForecast] = Operation(
    **{**{each.name: getattr(PROVISION, each.name) for each in fields(PROVISION)}, "gives": ProvisionForecast}
)
"""The same call with ``dry_run``."""


class ProvisionOptions(TypedDict, total=False):
    """What may be said of a volume to be filled: see ``hearth.api.provision_schemas.Provision``."""

    image_type: str
    pool: str
    mode: str
    checksum: str
    correlation_id: str
    webhook_url: str
    webhook_progress: bool
    grow: str
    verify: bool


def start(image_url: str, volume_name: str, size_gb: float, options: ProvisionOptions) -> Call[ProvisionStarted]:
    return call_of(PROVISION, _asked(image_url, volume_name, size_gb, options))


def forecast(image_url: str, volume_name: str, size_gb: float, options: ProvisionOptions) -> Call[ProvisionForecast]:
    asked = _asked(image_url, volume_name, size_gb, options, dry_run=True)
    return call_of(FORECAST, asked, timeout_s=LONG_S)


def volumes() -> Call[ProvisionedList]:
    return call_of(LIST_PROVISIONED, Nothing())


def volume(name: str, pool: str | None) -> Call[ProvisionedVolume]:
    return call_of(GET_PROVISIONED, ListProvisioned(pool=pool), ref=name, what="volume")


def grow(name: str, size_gb: float, pool: str | None, what: str) -> Call[ProvisionedVolume]:
    asked = GrowProvisioned(volume_size_gb=size_gb, pool=pool, grow=what)
    return call_of(GROW_PROVISIONED, asked, ref=name, what="volume", timeout_s=LONG_S)


def delete(name: str, pool: str | None) -> Call[Nothing]:
    return call_of(DELETE_PROVISIONED, ListProvisioned(pool=pool), ref=name, what="volume", timeout_s=LONG_S)


def cached() -> Call[CachedImageList]:
    return call_of(LIST_CACHED, Nothing())


def prefetch(image_url: str, image_type: str, checksum: str | None) -> Call[JobView]:
    return call_of(PREFETCH_IMAGE, PrefetchImage(image_url=image_url, image_type=image_type, checksum=checksum))


def pin(key: str, *, pinned: bool) -> Call[CachedImage]:
    return call_of(PIN_CACHED, PinCached(pinned=pinned), ref=key, what="image")


def uncache(key: str) -> Call[Nothing]:
    return call_of(DELETE_CACHED, Nothing(), ref=key, what="image")


def _asked(
    image_url: str, volume_name: str, size_gb: float, options: ProvisionOptions, *, dry_run: bool = False
) -> Provision:
    return Provision(
        image_url=image_url,
        volume_name=volume_name,
        volume_size_gb=size_gb,
        image_type=options.get("image_type", "qcow2"),
        correlation_id=options.get("correlation_id"),
        pool=options.get("pool"),
        mode=options.get("mode", "auto"),
        checksum=options.get("checksum"),
        grow=options.get("grow", "table"),
        verify=options.get("verify", False),
        dry_run=dry_run,
        webhook_url=options.get("webhook_url"),
        webhook_progress=options.get("webhook_progress", False),
    )
