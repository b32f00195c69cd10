"""/api/v1/sandboxes: create, list, show, destroy."""

from __future__ import annotations

from typing import Any

from hearth.api.operations import CREATE_SANDBOX, DESTROY_SANDBOX, GET_SANDBOX, LIST_SANDBOXES
from hearth.api.schemas import CreateSandbox, ListSandboxes, Nothing, SandboxList, SandboxView, StepTiming
from hearth.control.volumes import NewVolume, WantedVolumes
from hearth.errors import Conflict, InvalidInput, NotFound
from hearth.model import Sandbox, SandboxSpec, StepPhase
from hearth.server.names import random_name
from hearth.server.policies import policy_fields
from hearth.server.resource import Call, Reply, bind
from hearth.server.routes.secrets import secret_use
from hearth.server.views import sandbox_view
from hearth.volume.mounting import VolumeRequest

NAME_ATTEMPTS = 8


async def create(call: Call[CreateSandbox]) -> SandboxView | Reply[SandboxView]:
    body = call.input
    name = body.name or call.chosen_name or await _free_name(call)
    spec, volumes = spec_of(body, name), volumes_of(body)
    isolated = call.daemon.sandboxes.workshop.engine.capabilities.isolated
    await call.daemon.secrets.require(call.user, spec.secrets, isolated=isolated)
    created = await call.daemon.sandboxes.create(call.user, spec, from_=body.from_, volumes=volumes)
    view = await detailed_view(call, created.sandbox)
    return view if created.new else Reply(value=view, status=200)


async def list_sandboxes(call: Call[ListSandboxes]) -> SandboxList:
    query = call.input
    labels = dict(label.split("=", 1) for label in query.label)
    page = await call.daemon.sandboxes.list(call.user, labels=labels, limit=query.limit, cursor=query.cursor)
    items = [brief_view(call, each, with_console=False) for each in page.items]
    return SandboxList(items=items, next_cursor=page.next_cursor)


async def get(call: Call[Nothing]) -> SandboxView:
    return await detailed_view(call, await call.daemon.sandboxes.get(call.user, call.ref))


async def destroy(call: Call[Nothing]) -> Nothing:
    await call.daemon.sandboxes.destroy(call.user, call.ref)
    return Nothing()


def spec_of(body: CreateSandbox, name: str) -> SandboxSpec:
    """Give the specification a body asks for; of one that starts from another, image and shape are that one's.

    Raises:
        InvalidInput: the body asks for another image or shape than what it starts from has.
    """
    said = {"image": body.image, "cpus": body.cpus, "memory_mb": body.memory_mb}
    if body.from_ is not None and (field := next((name for name, value in said.items() if value is not None), None)):
        raise InvalidInput(
            f"invalid {field}",
            details=f"{field} is given with from, which brings its own",
            resolution=f"leave out {field}, or from",
            field=field,
        )
    usual = SandboxSpec(name=name)
    return SandboxSpec(
        name=name,
        image=usual.image if body.image is None else body.image,
        cpus=usual.cpus if body.cpus is None else body.cpus,
        memory_mib=usual.memory_mib if body.memory_mb is None else body.memory_mb,
        env=dict(body.env),
        labels=dict(body.labels),
        keep_hot=body.keep_hot,
        ttl_s=body.ttl_s,
        idle_pause_s=body.idle_pause_s,
        idle_stop_s=body.idle_stop_s,
        net_policy=policy_fields(body.net_policy),
        secrets=tuple(map(secret_use, body.secrets)),
    )


def volumes_of(body: CreateSandbox) -> WantedVolumes:
    """Give the volumes a body asks for."""
    return WantedVolumes(
        existing=[VolumeRequest(name=each.name, mount=each.mount, read_only=each.read_only) for each in body.volumes],
        new=[NewVolume(name=each.name, size_mib=each.size_mb, mount=each.mount) for each in body.new_volumes],
    )


async def detailed_view(call: Call[Any], sandbox: Sandbox) -> SandboxView:
    """Give a sandbox with what each step of its creation took, and its volumes."""
    records = await call.daemon.sandboxes.timings(call.user, sandbox.id)
    timings = [
        StepTiming(name=record.name, duration_ms=round(record.duration_s * 1000, 3))
        for record in records
        if record.phase is StepPhase.DO
    ]
    volumes = await call.daemon.volumes.placing.mounted(sandbox)
    sandboxes = call.daemon.sandboxes
    address = sandboxes.networking.address(sandbox)
    return sandbox_view(sandbox, sandboxes.heat(sandbox), address=address, timings=timings, volumes=volumes)


def brief_view(call: Call[Any], sandbox: Sandbox, *, with_console: bool = True) -> SandboxView:
    """Give what is known of a sandbox without looking anywhere."""
    sandboxes = call.daemon.sandboxes
    address = sandboxes.networking.address(sandbox)
    return sandbox_view(sandbox, sandboxes.heat(sandbox), address=address, with_console=with_console)


async def _free_name(call: Call[CreateSandbox]) -> str:
    """Choose a name that is not taken: creating a taken one would hand out the sandbox that has it."""
    for _ in range(NAME_ATTEMPTS):
        name = random_name()
        try:
            await call.daemon.sandboxes.get(call.user, name)
        except NotFound:
            return name
    raise Conflict("no free name was found", resolution="choose a name yourself", field="name")


BOUND = (
    bind(CREATE_SANDBOX, create),
    bind(LIST_SANDBOXES, list_sandboxes),
    bind(GET_SANDBOX, get),
    bind(DESTROY_SANDBOX, destroy),
)
