"""/api/v1/snapshots, and the checkpoint of a sandbox that makes one."""

from __future__ import annotations

from hearth.api.life_operations import CHECKPOINT_SANDBOX
from hearth.api.schemas import ListPage, Nothing, SandboxList
from hearth.api.sleep_schemas import CopySandbox, NamedCopy, SnapshotList, SnapshotView
from hearth.api.snapshot_operations import DELETE_SNAPSHOT, GET_SNAPSHOT, LIST_SNAPSHOTS, RESUME_SNAPSHOT
from hearth.server.resource import Call, bind
from hearth.server.routes.sandboxes import brief_view
from hearth.server.views import snapshot_view
from hearth.store.base import PageRequest


async def create(call: Call[NamedCopy]) -> SnapshotView:
    return snapshot_view(await call.daemon.checkpoints.create(call.user, call.ref, call.input.name))


async def list_snapshots(call: Call[ListPage]) -> SnapshotList:
    wanted = PageRequest(limit=call.input.limit, cursor=call.input.cursor)
    page = await call.daemon.checkpoints.list(call.user, wanted)
    return SnapshotList(items=[snapshot_view(each) for each in page.items], next_cursor=page.next_cursor)


async def get(call: Call[Nothing]) -> SnapshotView:
    return snapshot_view(await call.daemon.checkpoints.get(call.user, call.ref))


async def delete(call: Call[Nothing]) -> Nothing:
    await call.daemon.checkpoints.delete(call.user, call.ref)
    return Nothing()


async def resume(call: Call[CopySandbox]) -> SandboxList:
    wanted = call.input
    made = await call.daemon.checkpoints.resume(call.user, call.ref, sandbox_name=wanted.name, count=wanted.count)
    return SandboxList(items=[brief_view(call, each) for each in made])


BOUND = (
    bind(CHECKPOINT_SANDBOX, create),
    bind(LIST_SNAPSHOTS, list_snapshots),
    bind(GET_SNAPSHOT, get),
    bind(DELETE_SNAPSHOT, delete),
    bind(RESUME_SNAPSHOT, resume),
)
