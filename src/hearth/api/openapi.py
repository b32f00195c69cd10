"""OpenAPI 3.1 made from the table of operations, so that it cannot tell another story than the server."""

from __future__ import annotations

from typing import Any

import msgspec

from hearth.api.limits import JSON, NDJSON, SSE
from hearth.api.openapi_examples import examples_of
from hearth.api.openapi_parts import (
    BYTES_SCHEMA,
    HEADERS,
    IDEMPOTENCY_PARAMETER,
    PATH_PARAMETERS,
    RANGE_PARAMETER,
    REQUEST_ID_PARAMETER,
    SECURITY,
    SECURITY_SCHEMES,
    TOKEN_PARAMETER,
    header_names,
    parameter_names,
    tag_of,
)
from hearth.api.openapi_paths import OTHER_PATHS
from hearth.api.operation import Operation
from hearth.api.operations import OPERATIONS
from hearth.api.problems import STATUS
from hearth.api.schemas import ErrorEvent, Nothing, Problem
from hearth.errors import Code
from hearth.version import VERSION

_SCHEMA = "#/components/schemas/{name}"
DESCRIPTION = (
    "Every untrusted program gets a computer of its own. Whatever is named by id or name is so in paths; what belongs "
    "to another user answers 404. Unknown fields and query parameters are refused. All errors have one shape, whose "
    "`code` is of a closed list."
)


def openapi_document() -> dict[str, Any]:
    """Give the whole document as plain values."""
    types: list[Any] = [Problem, ErrorEvent]
    for operation in OPERATIONS:
        types += [operation.takes, operation.gives, *operation.streams]
        types += [operation.events] if operation.events is not None else []
        types += [*operation.conversation.hears, *operation.conversation.says] if operation.conversation else []
    unique = list(dict.fromkeys(types))
    _, components = msgspec.json.schema_components(unique, ref_template=_SCHEMA)
    for problem in (Problem, ErrorEvent):
        components[problem.__name__]["properties"]["code"]["enum"] = sorted(code.value for code in Code)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation, components)
    tags = {described["tags"][0] for path in paths.values() for described in path.values()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "hearth",
            "version": VERSION,
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in sorted(tags | {"this document", "proxy"})],
        "paths": paths | OTHER_PATHS,
        "components": {
            "schemas": components,
            "headers": HEADERS,
            "parameters": {
                "request_id": REQUEST_ID_PARAMETER,
                "idempotency_key": IDEMPOTENCY_PARAMETER,
                "range": RANGE_PARAMETER,
                "token": TOKEN_PARAMETER,
            },
            "securitySchemes": SECURITY_SCHEMES,
        },
        "security": SECURITY,
    }


def _describe(operation: Operation[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [tag_of(operation.path)],
        "summary": operation.summary,
        "parameters": _parameters(operation, components),
        "responses": _responses(operation),
    }
    if operation.has_body and operation.takes is not Nothing:
        content = {JSON: {"schema": _schema(operation.takes), **examples_of(operation.takes)}}
        described["requestBody"] = {"required": operation.needs_body, "content": content}
    if operation.uploads:
        described["requestBody"] = {"required": True, "content": dict.fromkeys(operation.uploads, BYTES_SCHEMA)}
    if operation.conversation is not None:
        described["x-hearth-websocket"] = {
            "client": [_schema(each) for each in operation.conversation.hears],
            "server": [_schema(each) for each in operation.conversation.says],
        }
    if operation.public:
        described["security"] = []
    else:
        described["x-hearth-scope"] = operation.needed_scope.value
    return described


def _parameters(operation: Operation[Any, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, **PATH_PARAMETERS[name]}
        for name in parameter_names(operation.path)
    ]
    if not operation.has_body and operation.takes is not Nothing:
        schema = components[operation.takes.__name__]
        required = schema.get("required", ())
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": member}
            for name, member in schema["properties"].items()
        ]
    if operation.events is not None and operation.takes is not Nothing:
        last = "The id of the last event seen, as browsers send it; it comes before `after`."
        parameters.append({"name": "Last-Event-ID", "in": "header", "description": last, "schema": {"type": "string"}})
    parameters.append({"$ref": "#/components/parameters/request_id"})
    if operation.creates:
        parameters.append({"$ref": "#/components/parameters/idempotency_key"})
    if operation.reads_header is not None:
        parameters.append({"$ref": f"#/components/parameters/{operation.reads_header.lower()}"})
    if operation.conversation is not None:
        parameters.append({"$ref": "#/components/parameters/token"})
    return parameters


def _responses(operation: Operation[Any, Any]) -> dict[str, Any]:
    codes: dict[int, list[str]] = {}
    for code in operation.every_error:
        codes.setdefault(STATUS[code], []).append(code.value)
    responses: dict[str, Any] = {
        str(status): {
            "description": ", ".join(names),
            "headers": header_names(status),
            "content": {JSON: {"schema": _schema(Problem), **examples_of(Problem, status=status, code=names[0])}},
        }
        for status, names in codes.items()
    }
    for status in operation.statuses:
        answer: dict[str, Any] = {"description": "done", "headers": header_names(status, creates=operation.creates)}
        content: dict[str, Any] = {}
        if operation.gives is not Nothing:
            content[JSON] = {"schema": _schema(operation.gives), **examples_of(operation.gives)}
        if operation.streams:
            answer["description"] = f"done; with `Accept: {NDJSON}` one object a line as it comes, of which the last "
            answer["description"] += "is always `exit` or `error`"
            content[NDJSON] = {"schema": {"oneOf": [_schema(schema) for schema in operation.streams]}}
        if operation.events is not None:
            answer["description"] = "server-sent events, whose `data` is one object each; comments are heartbeats"
            content[SSE] = {"schema": _event(operation.events)}
        for media in operation.downloads:
            content[media] = BYTES_SCHEMA
        for name in operation.headers:
            answer["headers"][name] = {"$ref": f"#/components/headers/{name}"}
        if status == 101:
            answer["description"] = "from here on a WebSocket; `x-hearth-websocket` tells its text messages"
        if content:
            answer["content"] = content
        responses[str(status)] = answer
    return dict(sorted(responses.items()))


def _event(data: type[Any]) -> dict[str, Any]:
    """Give the schema of one server-sent event, as a reader takes it apart."""
    text = {"type": "string"}
    members = {"type": "string", "contentMediaType": JSON, "contentSchema": _schema(data)}
    return {"type": "object", "properties": {"id": text, "event": text, "data": members}, "required": ["data"]}


def _schema(schema: type[Any]) -> dict[str, str]:
    return {"$ref": _SCHEMA.format(name=schema.__name__)}
