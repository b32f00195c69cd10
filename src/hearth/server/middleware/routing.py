"""Which route a request took, as a template: what metrics and spans are named by, since a path has ids in it."""

from __future__ import annotations

import re
from typing import Any

from starlette.types import Scope

from hearth.api.limits import PREFIX
from hearth.control.publishing import PUBLIC_PATH

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "OTHER"
UNMATCHED, PUBLIC = "unmatched", "published"
OF_ROOT = frozenset({"/openapi.json", "/docs", "/metrics"})
_TO_SANDBOX = re.compile(rb"%b/sandboxes/[^/]+/(proxy|tunnel)/" % PREFIX.encode())


def method_of(scope: Scope) -> str:
    """Give a request's method; of those that nobody knows one stands for all."""
    method: str = scope["method"]
    return method if method in METHODS else OTHER_METHOD


def route_of(scope: Scope) -> str:
    """Give the template of the route that a request took, once it has taken it: one of a closed set."""
    operation = _operation_of(scope.get("endpoint"), scope["method"])
    if operation is not None:
        return str(operation.path)
    raw: bytes = scope.get("raw_path", b"")
    if "alias" in scope["state"].get("log", {}) or raw.startswith(PUBLIC_PATH.encode()):
        return PUBLIC
    if (match := _TO_SANDBOX.match(raw)) is not None:
        return f"{PREFIX}/sandboxes/{{ref}}/{match[1].decode()}/{{port}}"
    return scope["path"] if scope["path"] in OF_ROOT else UNMATCHED


def _operation_of(resource: Any, method: str) -> Any:
    """Find the operation behind the app that the router chose; another method of the same path has the same template.

    What stands around an endpoint either names the operation itself or what it stands around, as ``app``.
    """
    endpoints = getattr(resource, "endpoints", None)
    if not endpoints:
        return None
    app = endpoints.get(method) or next(iter(endpoints.values()))
    while app is not None:
        if (operation := getattr(app, "operation", None)) is not None:
            return operation
        app = getattr(app, "app", None)
    return None
