"""/api/v1/sandboxes/{ref}: change, stop, start, pause, resume, fork, save as an image."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import UNSET

from hearth.api.image_schemas import ImageView
from hearth.api.life_operations import (
    FORK_SANDBOX,
    PAUSE_SANDBOX,
    RESUME_SANDBOX,
    SAVE_IMAGE,
    START_SANDBOX,
    STOP_SANDBOX,
    UPDATE_SANDBOX,
)
from hearth.api.schemas import Nothing, SandboxList, SandboxView
from hearth.api.sleep_schemas import ChangeSandbox, CopySandbox, NamedCopy, StartSandbox
from hearth.model import Lifetime, Sandbox, SandboxChanges
from hearth.server.policies import policy_fields
from hearth.server.resource import Call, bind
from hearth.server.routes.sandboxes import brief_view
from hearth.server.views import image_view


async def update(call: Call[ChangeSandbox]) -> SandboxView:
    changes = changes_of(call.input, datetime.now(UTC))
    return _view(call, await call.daemon.sandboxes.update(call.user, call.ref, changes))


async def stop(call: Call[Nothing]) -> SandboxView:
    return _view(call, await call.daemon.sandboxes.stop(call.user, call.ref))


async def start(call: Call[StartSandbox]) -> SandboxView:
    return _view(call, await call.daemon.sandboxes.start(call.user, call.ref, force=call.input.force))


async def pause(call: Call[Nothing]) -> SandboxView:
    return _view(call, await call.daemon.sandboxes.pause(call.user, call.ref))


async def resume(call: Call[Nothing]) -> SandboxView:
    return _view(call, await call.daemon.sandboxes.resume(call.user, call.ref))


async def fork(call: Call[CopySandbox]) -> SandboxList:
    wanted = call.input
    copies = await call.daemon.sandboxes.fork(call.user, call.ref, name=wanted.name, count=wanted.count)
    return SandboxList(items=[_view(call, copy) for copy in copies])


async def save_image(call: Call[NamedCopy]) -> ImageView:
    return image_view(await call.daemon.sandboxes.save_image(call.user, call.ref, call.input.name))


def changes_of(body: ChangeSandbox, now: datetime) -> SandboxChanges:
    """Give the changes a body asks for; a time to live counts from ``now``."""
    lifetime = None
    if body.ttl_s is None:
        lifetime = Lifetime()
    elif body.ttl_s is not UNSET:
        lifetime = Lifetime(ttl_s=body.ttl_s, expires_at=now + timedelta(seconds=body.ttl_s))
    return SandboxChanges(
        name=body.name,
        keep_hot=body.keep_hot,
        labels_add=dict(body.labels_add),
        labels_remove=tuple(body.labels_remove),
        lifetime=lifetime,
        net_policy=policy_fields(body.net_policy),
    )


def _view(call: Call[Any], sandbox: Sandbox) -> SandboxView:
    return brief_view(call, sandbox)


BOUND = (
    bind(UPDATE_SANDBOX, update),
    bind(STOP_SANDBOX, stop),
    bind(START_SANDBOX, start),
    bind(PAUSE_SANDBOX, pause),
    bind(RESUME_SANDBOX, resume),
    bind(FORK_SANDBOX, fork),
    bind(SAVE_IMAGE, save_image),
)
