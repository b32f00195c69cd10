"""GET /openapi.json: the contract for machines."""

from __future__ import annotations

import msgspec
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from hearth.api.limits import JSON
from hearth.api.openapi import openapi_document
from hearth.server.resource import Resource

DOCUMENT = msgspec.json.encode(openapi_document())


async def show(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(DOCUMENT, media_type=JSON)(scope, receive, send)


ROUTE = Route("/openapi.json", Resource({"GET": show}))
