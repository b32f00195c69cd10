"""/api/v1/volumes, and the volumes of a sandbox."""

from __future__ import annotations

from hearth.api.schemas import ListPage, Nothing
from hearth.api.volume_operations import (
    ATTACH_VOLUME,
    CLONE_VOLUME,
    CREATE_VOLUME,
    DELETE_VOLUME,
    DETACH_VOLUME,
    GET_VOLUME,
    LINK_VOLUME,
    LIST_VOLUMES,
    RESIZE_VOLUME,
)
from hearth.api.volume_schemas import (
    AttachVolume,
    CloneVolume,
    CreateVolume,
    LinkVolume,
    MountedVolume,
    ResizeVolume,
    VolumeList,
    VolumeView,
)
from hearth.control.provisioning.links import WantedLink
from hearth.server.resource import Call, bind
from hearth.server.views import mounted_view, volume_view
from hearth.store.base import PageRequest
from hearth.volume.mounting import VolumeRequest


async def create(call: Call[CreateVolume]) -> VolumeView:
    made = await call.daemon.volumes.create(call.user, call.input.name, call.input.size_mb)
    return volume_view(await call.daemon.volumes.inspect(call.user, made.id))


async def link(call: Call[LinkVolume]) -> VolumeView:
    asked = call.input
    wanted = WantedLink(
        name=asked.name, provisioned=asked.provisioned, pool=asked.pool, partition=asked.partition, owner=asked.owner
    )
    made = await call.daemon.links.link(call.user, wanted)
    return volume_view(await call.daemon.volumes.inspect(call.user, made.id))


async def list_volumes(call: Call[ListPage]) -> VolumeList:
    wanted = PageRequest(limit=call.input.limit, cursor=call.input.cursor)
    page = await call.daemon.volumes.list(call.user, wanted)
    return VolumeList(items=[volume_view(each) for each in page.items], next_cursor=page.next_cursor)


async def get(call: Call[Nothing]) -> VolumeView:
    return volume_view(await call.daemon.volumes.inspect(call.user, call.ref))


async def delete(call: Call[Nothing]) -> Nothing:
    await call.daemon.volumes.delete(call.user, call.ref)
    return Nothing()


async def resize(call: Call[ResizeVolume]) -> VolumeView:
    grown = await call.daemon.volumes.resize(call.user, call.ref, call.input.size_mb)
    return volume_view(await call.daemon.volumes.inspect(call.user, grown.id))


async def clone(call: Call[CloneVolume]) -> VolumeView:
    made = await call.daemon.volumes.clone(call.user, call.ref, call.input.name)
    return volume_view(await call.daemon.volumes.inspect(call.user, made.id))


async def attach(call: Call[AttachVolume]) -> MountedVolume:
    wanted = call.input
    request = VolumeRequest(name=wanted.name, mount=wanted.mount, read_only=wanted.read_only)
    return mounted_view(await call.daemon.attaching.attach(call.user, call.ref, request))


async def detach(call: Call[Nothing]) -> Nothing:
    await call.daemon.attaching.detach(call.user, call.ref, call.request.path_params["volume"])
    return Nothing()


BOUND = (
    bind(CREATE_VOLUME, create),
    bind(LINK_VOLUME, link),
    bind(LIST_VOLUMES, list_volumes),
    bind(GET_VOLUME, get),
    bind(DELETE_VOLUME, delete),
    bind(RESIZE_VOLUME, resize),
    bind(CLONE_VOLUME, clone),
    bind(ATTACH_VOLUME, attach),
    bind(DETACH_VOLUME, detach),
)
