"""/api/v1/sandboxes: create, list, show, destroy."""

from __future__ import annotations

from typing import Any

from hearth.api.sandbox_operations import CREATE_SANDBOX, DESTROY_SANDBOX, GET_SANDBOX, LIST_SANDBOXES
from hearth.api.schemas import CreateSandbox, ListSandboxes, Nothing, SandboxList, SandboxView, StepTiming
from hearth.errors import Conflict, NotFound
from hearth.model import Sandbox, StepPhase
from hearth.server.drafts import Draft, draft_of, said_in
from hearth.server.names import random_name
from hearth.server.resource import Call, Reply, bind
from hearth.server.views import sandbox_view

NAME_ATTEMPTS = 8


async def create(call: Call[CreateSandbox]) -> SandboxView | Reply[SandboxView]:
    body = call.input
    name = body.name or call.chosen_name or await _free_name(call)
    draft = await _draft(call)
    spec, extras = draft.spec(name), draft.extras(name)
    isolated = call.daemon.sandboxes.workshop.engine.capabilities.isolated
    await call.daemon.secrets.require(call.user, spec.secrets, isolated=isolated)
    created = await call.daemon.sandboxes.create(call.user, spec, from_=body.from_, extras=extras)
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


async def _draft(call: Call[CreateSandbox]) -> Draft:
    """Give what is asked for, with what its template says of what it leaves out.

    Raises:
        NotFound: the caller has no such template.
        InvalidInput: the two together are not what a sandbox can be.
    """
    reference = call.input.template_id
    if reference is None:
        return Draft(body=call.input)
    template = await call.daemon.user_templates.get(call.user, reference)
    return draft_of(template.id, template.spec, await said_in(call))


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
