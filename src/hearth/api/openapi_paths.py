"""Paths of the OpenAPI document that are no rows of the table: they take any method or body, or answer no JSON."""

from __future__ import annotations

from typing import Any

from hearth.api.limits import JSON, PREFIX
from hearth.api.openapi_parts import PATH_PARAMETERS, header_names
from hearth.api.port_operations import TUNNEL_PATH, TUNNEL_PROTOCOL

PROXY_PATH = f"{PREFIX}/sandboxes/{{ref}}/proxy/{{port}}/{{rest}}"
PROXY_METHODS = ("get", "put", "post", "delete", "patch", "options", "head")
_PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}


def _problems(statuses: dict[int, str]) -> dict[str, Any]:
    return {
        str(status): {"description": codes, "headers": header_names(status), "content": {JSON: _PROBLEM}}
        for status, codes in statuses.items()
    }


def _place(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, **PATH_PARAMETERS[name]} for name in names]


def _page(path: str, summary: str, media: str) -> dict[str, Any]:
    answer = {"description": "done", "headers": header_names(200), "content": {media: {"schema": {}}}}
    return {
        "get": {
            "operationId": path.strip("/").replace(".", "_"),
            "tags": ["this document"],
            "summary": summary,
            "responses": {"200": answer},
            "security": [],
        }
    }


_CROSSING = _problems(
    {
        400: "invalid: the port",
        401: "unauthenticated",
        403: "forbidden",
        404: "not_found: the sandbox",
        409: "conflict: it cannot be woken",
        502: "guest_failed: nothing listens there",
        503: "unavailable",
        504: "timeout",
    }
)
_REST = {"name": "rest", "in": "path", "required": True, "description": "Any path.", "schema": {"type": "string"}}

OTHER_PATHS: dict[str, Any] = {
    "/openapi.json": _page("/openapi.json", "This document.", JSON),
    "/docs": _page("/docs", "This document for people.", "text/html"),
    PROXY_PATH: {
        method: {
            "operationId": f"proxy_{method}",
            "tags": ["proxy"],
            "summary": "Pass a request on to what listens in the sandbox, byte by byte, and its answer back; wakes it.",
            "description": "Whatever the server in the sandbox answers comes back as it is, WebSockets and other "
            "upgrades included; the token may come as `X-Hearth-Token`, for upgrades as `?token=`.",
            "parameters": [*_place("ref", "port"), _REST],
            "responses": {"default": {"description": "what the server there answers"}, **_CROSSING},
        }
        for method in PROXY_METHODS
    },
    TUNNEL_PATH: {
        "get": {
            "operationId": "tunnel",
            "tags": ["proxy"],
            "summary": f"Change the protocol to `{TUNNEL_PROTOCOL}`: the bytes of a connection to a port, each way.",
            "parameters": [
                *_place("ref", "port"),
                {"name": "Upgrade", "in": "header", "required": True, "schema": {"const": TUNNEL_PROTOCOL}},
            ],
            "responses": {"101": {"description": "from here on raw bytes"}, **_CROSSING},
        }
    },
}
