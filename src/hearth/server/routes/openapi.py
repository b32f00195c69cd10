"""GET /openapi.json, the contract for machines, and GET /docs, the same for people; both are made at the first call."""

from __future__ import annotations

import functools

import msgspec
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from hearth.api.docs_page import docs_page
from hearth.api.limits import JSON
from hearth.api.openapi import openapi_document
from hearth.server.resource import Resource

NO_SCRIPT = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}


async def show(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(_document(), media_type=JSON)(scope, receive, send)


async def show_page(scope: Scope, receive: Receive, send: Send) -> None:
    await HTMLResponse(_page(), headers=NO_SCRIPT)(scope, receive, send)


@functools.cache
def _document() -> bytes:
    return msgspec.json.encode(openapi_document())


@functools.cache
def _page() -> str:
    return docs_page(openapi_document())


ROUTES = (Route("/openapi.json", Resource({"GET": show})), Route("/docs", Resource({"GET": show_page})))
