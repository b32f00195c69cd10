"""/api/v1/provision: volumes filled from golden images, and the images kept for them."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

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
from hearth.control.provisioning.order import ProvisionOrder, bytes_of_gib
from hearth.errors import InvalidInput
from hearth.image.golden.entries import Entry
from hearth.server.job_views import STATUS
from hearth.server.resource import Call, Reply, bind
from hearth.store.refusals import not_found
from hearth.volume.golden.base import GoldenVolume


async def provision(call: Call[Provision]) -> ProvisionStarted | Reply[Any]:
    asked, provisioner = call.input, call.daemon.provisioner
    order = ProvisionOrder(
        image_url=asked.image_url,
        image_type=asked.image_type,
        volume_name=asked.volume_name,
        size_bytes=bytes_of_gib(asked.volume_size_gb),
        pool=asked.pool or provisioner.default_pool,
        mode=asked.mode,
        checksum=asked.checksum,
        correlation_id=asked.correlation_id,
        grow=asked.grow,
        verify=asked.verify,
    )
    if asked.webhook_url is not None:
        call.daemon.webhooks.check(asked.webhook_url)
    if asked.dry_run or _is_dry_run(call.request):
        return Reply(value=await _forecast(call, order), status=200)
    job = await provisioner.submit(call.user, order)
    if asked.webhook_url is not None:  # after the job: of one that has ended already its end is told
        await call.daemon.webhooks.add(job, asked.webhook_url, with_progress=asked.webhook_progress)
    return ProvisionStarted(
        job_id=job.id,
        status=STATUS[job.state],
        correlation_id=asked.correlation_id,
        queue_position=await provisioner.position(job),
    )


async def list_provisioned(call: Call[Nothing]) -> ProvisionedList:
    return ProvisionedList(items=[_view(*each) for each in await call.daemon.provisioner.volumes(call.user)])


async def get(call: Call[ListProvisioned]) -> ProvisionedVolume:
    return _view(*await call.daemon.provisioner.volume(call.user, call.input.pool, call.ref))


async def grow(call: Call[GrowProvisioned]) -> ProvisionedVolume:
    size_bytes = bytes_of_gib(call.input.volume_size_gb)
    return _view(*await call.daemon.provisioner.grow(call.user, call.input.pool, call.ref, size_bytes, call.input.grow))


async def delete(call: Call[ListProvisioned]) -> Nothing:
    await call.daemon.provisioner.delete(call.user, call.input.pool, call.ref)
    return Nothing()


async def list_cached(call: Call[Nothing]) -> CachedImageList:
    entries = await call.daemon.provisioner.cached(call.user)
    return CachedImageList(
        items=[_cached(call, each) for each in sorted(entries, key=lambda entry: entry.last_used_at, reverse=True)]
    )


async def pin_cached(call: Call[PinCached]) -> CachedImage:
    await call.daemon.provisioner.pin(call.user, call.ref, is_pinned=call.input.pinned)
    for entry in await call.daemon.provisioner.cached(call.user):
        if entry.key == call.ref:
            return _cached(call, entry)
    raise not_found("cached image", call.ref)


async def delete_cached(call: Call[Nothing]) -> Nothing:
    await call.daemon.provisioner.uncache(call.user, call.ref)
    return Nothing()


def _is_dry_run(request: Request) -> bool:
    """Read the query. What is misspelt is refused: it might have been meant to keep a volume from being written."""
    said: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name != "dry_run" or name in said or value not in ("true", "false"):
            raise InvalidInput(
                f"invalid {name[:80]}",
                details="the query of this call is dry_run=true, dry_run=false, or nothing",
                resolution="give everything else in the body",
                field=name[:80],
            )
        said[name] = value
    return said.get("dry_run") == "true"


async def _forecast(call: Call[Provision], order: ProvisionOrder) -> ProvisionForecast:
    found = await call.daemon.provisioner.forecast(call.user, order)
    return ProvisionForecast(
        volume_name=order.volume_name,
        pool=order.pool,
        image_size_bytes=found.image_size_bytes,
        virtual_size_bytes=found.virtual_size_bytes,
        checksum=found.checksum,
        is_cached=found.is_cached,
        strategy="clone" if found.strategy == "clone" else "copy",
        why=found.why,
        replaces=found.replaces,
        bytes_to_fetch=found.bytes_to_fetch,
        bytes_to_write=found.bytes_to_write,
        estimate_s=found.estimate_s,
    )


def _view(pool: str, volume: GoldenVolume) -> ProvisionedVolume:
    return ProvisionedVolume(
        volume_name=volume.name,
        pool=pool,
        size_bytes=volume.size_bytes,
        path=str(volume.path),
        format=volume.format,
        image=volume.image,
        job_id=volume.job,
    )


def _cached(call: Call[Any], entry: Entry) -> CachedImage:
    return CachedImage(
        key=entry.key,
        url=entry.facts.url,
        format=entry.facts.format,
        size_bytes=entry.facts.size_bytes,
        virtual_size_bytes=entry.facts.virtual_size_bytes,
        allocated_bytes=entry.allocated_bytes,
        fetched_at=entry.facts.fetched_at,
        last_used_at=entry.last_used_at,
        pinned=entry.is_pinned,
        in_use=entry.is_in_use,
        used_by=[*call.daemon.provisioner.users_of(entry.key)],
    )


BOUND = (
    bind(PROVISION, provision),
    bind(LIST_PROVISIONED, list_provisioned),
    bind(GET_PROVISIONED, get),
    bind(GROW_PROVISIONED, grow),
    bind(DELETE_PROVISIONED, delete),
    bind(LIST_CACHED, list_cached),
    bind(PIN_CACHED, pin_cached),
    bind(DELETE_CACHED, delete_cached),
)
