"""The OpenAPI document tells what the table of operations holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from hearth.api.openapi import openapi_document
from hearth.api.operations import OPERATIONS


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(msgspec.json.encode(openapi_document()))
    return loaded


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(reference := value.get("$ref"), str):
            yield reference
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_operation_is_there_with_all_its_statuses(document: dict[str, Any]) -> None:
    for operation in OPERATIONS:
        described = document["paths"][operation.path][operation.method.lower()]
        assert described["operationId"] == operation.name
        assert {str(status) for status in operation.statuses} <= set(described["responses"])
        assert {"400", "500"} <= set(described["responses"])


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    found = list(references(document))
    assert len(found) > 20
    assert {reference.rsplit("/", 1)[1] for reference in found} <= set(schemas)


def test_bodies_say_that_unknown_fields_are_refused(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert schemas["CreateSandbox"]["additionalProperties"] is False
    assert schemas["ExecCommand"]["additionalProperties"] is False
    assert schemas["ExecCommand"]["required"] == ["cmd"]


def test_a_body_is_required_where_a_request_without_one_is_refused(document: dict[str, Any]) -> None:
    paths = document["paths"]
    assert paths["/api/v1/sandboxes"]["post"]["requestBody"]["required"] is True
    assert paths["/api/v1/sandboxes/{ref}"]["patch"]["requestBody"]["required"] is True
    assert paths["/api/v1/sandboxes/{ref}/fork"]["post"]["requestBody"]["required"] is False
    assert "requestBody" not in paths["/api/v1/sandboxes/{ref}/stop"]["post"]


def test_only_public_operations_go_without_a_token(document: dict[str, Any]) -> None:
    for operation in OPERATIONS:
        described = document["paths"][operation.path][operation.method.lower()]
        assert (described.get("security") == []) is operation.public
    assert document["security"] == [{"token": []}]


def test_a_streaming_operation_offers_both_forms(document: dict[str, Any]) -> None:
    content = document["paths"]["/api/v1/sandboxes/{ref}/exec"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "application/x-ndjson"}
    assert len(content["application/x-ndjson"]["schema"]["oneOf"]) == 5
    output = document["paths"]["/api/v1/execs/{ref}/output"]["get"]["responses"]["200"]["content"]
    assert set(output) == {"application/x-ndjson"}
    started = document["paths"]["/api/v1/sandboxes/{ref}/exec"]["post"]["responses"]["202"]["content"]
    assert started == {"application/json": {"schema": {"$ref": "#/components/schemas/ExecView"}}}


def test_queries_and_path_parameters_are_described(document: dict[str, Any]) -> None:
    listing = document["paths"]["/api/v1/sandboxes"]["get"]["parameters"]
    assert {(each["name"], each["in"]) for each in listing} == {
        ("label", "query"),
        ("limit", "query"),
        ("cursor", "query"),
    }
    one = document["paths"]["/api/v1/sandboxes/{ref}"]["get"]["parameters"]
    assert [(each["name"], each["in"], each["required"]) for each in one] == [("ref", "path", True)]
