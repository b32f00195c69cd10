"""/api/v1/sandboxes/{ref}/egress: what a sandbox tried to reach."""

from __future__ import annotations

from hearth.api.life_operations import GET_EGRESS
from hearth.api.net_schemas import EgressView
from hearth.api.schemas import Nothing
from hearth.server.policies import egress_view
from hearth.server.resource import Call, bind


async def get(call: Call[Nothing]) -> EgressView:
    sandboxes = call.daemon.sandboxes
    return egress_view(sandboxes.networking.egress(await sandboxes.get(call.user, call.ref)))


BOUND = (bind(GET_EGRESS, get),)
