"""/api/v1/machine-templates: machines kept ready to be cloned. They are the host's, not a user's."""

from __future__ import annotations

from hearth.api.schemas import Nothing
from hearth.api.sleep_schemas import MachineTemplateList, MachineTemplateView, WarmTemplate
from hearth.api.snapshot_operations import DELETE_MACHINE_TEMPLATE, LIST_MACHINE_TEMPLATES, WARM_MACHINE_TEMPLATE
from hearth.control.eviction import MachineTemplate
from hearth.errors import Forbidden
from hearth.model import User
from hearth.server.resource import Call, bind


async def list_templates(call: Call[Nothing]) -> MachineTemplateList:
    return MachineTemplateList(items=[_view(each) for each in await call.daemon.templates.list()])


async def warm(call: Call[WarmTemplate]) -> MachineTemplateView:
    shape = call.input
    return _view(await call.daemon.templates.warm(call.user, shape.image, cpus=shape.cpus, memory_mib=shape.memory_mb))


async def delete(call: Call[Nothing]) -> Nothing:
    require_administrator(call.user)
    await call.daemon.templates.delete(call.ref)
    return Nothing()


def require_administrator(user: User) -> None:
    """Let administrators drop what the next user of that shape pays for with a boot.

    Raises:
        Forbidden: the user is none.
    """
    if not user.admin:
        raise Forbidden(
            "only administrators drop machine templates",
            details=f"{user.name} is none",
            resolution="ask one; those that nobody uses go by themselves",
        )


def _view(template: MachineTemplate) -> MachineTemplateView:
    return MachineTemplateView(
        id=template.id,
        image=template.image,
        cpus=template.cpus,
        memory_mb=template.memory_mib,
        size_bytes=template.size_bytes,
        uses=template.uses,
        is_stale=template.is_stale,
        created_at=template.created_at,
        used_at=template.used_at,
    )


BOUND = (
    bind(LIST_MACHINE_TEMPLATES, list_templates),
    bind(WARM_MACHINE_TEMPLATE, warm),
    bind(DELETE_MACHINE_TEMPLATE, delete),
)
