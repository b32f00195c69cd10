"""/api/v1/sandboxes: create, list, show, destroy."""

from __future__ import annotations

from collections.abc import Sequence

from hearth.api.operations import CREATE_SANDBOX, DESTROY_SANDBOX, GET_SANDBOX, LIST_SANDBOXES
from hearth.api.schemas import CreateSandbox, ListSandboxes, Nothing, SandboxList, SandboxView, StepTiming
from hearth.errors import Conflict, NotFound
from hearth.model import Sandbox, SandboxSpec, StepPhase
from hearth.server.names import random_name
from hearth.server.resource import Call, Reply, bind

NAME_ATTEMPTS = 8


async def create(call: Call[CreateSandbox]) -> SandboxView | Reply[SandboxView]:
    name = call.input.name or await _free_name(call)
    created = await call.daemon.sandboxes.create(call.user, spec_of(call.input, name))
    view = view_of(created.sandbox, await _timings(call, created.sandbox.id))
    return view if created.new else Reply(value=view, status=200)


async def list_sandboxes(call: Call[ListSandboxes]) -> SandboxList:
    query = call.input
    labels = dict(label.split("=", 1) for label in query.label)
    page = await call.daemon.sandboxes.list(call.user, labels=labels, limit=query.limit, cursor=query.cursor)
    return SandboxList(items=[view_of(sandbox) for sandbox in page.items], next_cursor=page.next_cursor)


async def get(call: Call[Nothing]) -> SandboxView:
    sandbox = await call.daemon.sandboxes.get(call.user, call.ref)
    return view_of(sandbox, await _timings(call, sandbox.id))


async def destroy(call: Call[Nothing]) -> Nothing:
    await call.daemon.sandboxes.destroy(call.user, call.ref)
    return Nothing()


def spec_of(body: CreateSandbox, name: str) -> SandboxSpec:
    """Give the specification a body asks for."""
    return SandboxSpec(
        name=name,
        image=body.image,
        cpus=body.cpus,
        memory_mib=body.memory_mb,
        env=dict(body.env),
        labels=dict(body.labels),
    )


def view_of(sandbox: Sandbox, timings: Sequence[StepTiming] = ()) -> SandboxView:
    """Give what the owner of a sandbox may see of it: everything but the values of its environment."""
    return SandboxView(
        id=sandbox.id,
        name=sandbox.spec.name,
        state=sandbox.state.value,
        image=sandbox.spec.image,
        cpus=sandbox.spec.cpus,
        memory_mb=sandbox.spec.memory_mib,
        labels=dict(sandbox.spec.labels),
        created_at=sandbox.created_at,
        error=sandbox.error,
        timings=list(timings),
    )


async def _timings(call: Call[CreateSandbox] | Call[Nothing], sandbox_id: str) -> list[StepTiming]:
    records = await call.daemon.sandboxes.timings(call.user, sandbox_id)
    done = (record for record in records if record.phase is StepPhase.DO)
    return [StepTiming(name=record.name, duration_ms=round(record.duration_s * 1000, 3)) for record in done]


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
