"""OpenAPI 3.1 made from the table of operations, so that it cannot tell another story than the server."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from hearth.api.limits import JSON, NDJSON
from hearth.api.operation import Operation
from hearth.api.operations import OPERATIONS
from hearth.api.problems import STATUS
from hearth.api.schemas import Nothing, Problem
from hearth.version import VERSION

_REF = "#/components/schemas/{name}"
_PARAMETERS = re.compile(r"{(\w+)}")


def openapi_document() -> dict[str, Any]:
    """Give the whole document as plain values."""
    types: list[Any] = [Problem]
    for operation in OPERATIONS:
        types += [operation.takes, operation.gives, *operation.also_gives.values(), *operation.streams]
    unique = list(dict.fromkeys(types))
    _, components = msgspec.json.schema_components(unique, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "hearth", "version": VERSION, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }


def _describe(operation: Operation[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": _responses(operation),
    }
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETERS.findall(operation.path)
    ]
    if operation.has_body and operation.takes is not Nothing:
        content = {JSON: {"schema": _ref(operation.takes)}}
        described["requestBody"] = {"required": operation.needs_body, "content": content}
    elif operation.takes is not Nothing:
        properties = components[operation.takes.__name__]["properties"]
        parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in properties.items()]
    if parameters:
        described["parameters"] = parameters
    if operation.public:
        described["security"] = []
    return described


def _responses(operation: Operation[Any, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for code in operation.every_error:
        entry = responses.setdefault(
            str(STATUS[code]), {"description": "", "content": {JSON: {"schema": _ref(Problem)}}}
        )
        entry["description"] = ", ".join(filter(None, [entry["description"], code.value]))
    for status in operation.statuses:
        answer: dict[str, Any] = {"description": "done"}
        gives = operation.also_gives.get(status, operation.gives)
        if gives is not Nothing:
            answer["content"] = {JSON: {"schema": _ref(gives)}}
        if operation.streams and status not in operation.also_gives:
            lines = {"oneOf": [_ref(schema) for schema in operation.streams]}
            answer.setdefault("content", {})[NDJSON] = {"schema": lines}
        responses[str(status)] = answer
    return responses


def _ref(schema: type[Any]) -> dict[str, str]:
    return {"$ref": _REF.format(name=schema.__name__)}
