"""The OpenAPI document tells what the table of operations holds, and is a valid one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from jsonschema_rs import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from hearth.api.docs_page import docs_page
from hearth.api.openapi import openapi_document
from hearth.api.openapi_examples import EXAMPLES
from hearth.api.openapi_paths import OTHER_PATHS
from hearth.api.operations import OPERATIONS
from hearth.errors import Code

METHODS = {"get", "put", "post", "patch", "delete", "options", "head"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(msgspec.json.encode(openapi_document()))
    return loaded


def described(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for methods in document["paths"].values():
        yield from (methods[method] for method in METHODS & set(methods))


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(reference := value.get("$ref"), str):
            yield reference
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []


def test_an_invalid_document_would_be_told(document: dict[str, Any]) -> None:
    broken = json.loads(json.dumps(document))
    broken["paths"]["/health"]["get"]["responses"]["200"].pop("description")
    assert list(OpenAPIV31SpecValidator(broken).iter_errors()) != []


def test_every_operation_is_there_with_all_its_statuses(document: dict[str, Any]) -> None:
    for operation in OPERATIONS:
        row = document["paths"][operation.path][operation.method.lower()]
        assert row["operationId"] == operation.name
        assert {str(status) for status in operation.statuses} <= set(row["responses"])
        assert {"400", "500"} <= set(row["responses"])


def test_operations_are_named_once_and_belong_to_a_resource(document: dict[str, Any]) -> None:
    names = [row["operationId"] for row in described(document)]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in document["tags"]}
    assert {row["tags"][0] for row in described(document)} == tags


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert len(found) > 40
    for reference in found:
        place: Any = document
        for word in reference.removeprefix("#/").split("/"):
            place = place[word]


def test_every_example_is_of_its_schema(document: dict[str, Any]) -> None:
    components = document["components"]
    shown = 0
    for row in described(document):
        bodies = [row["requestBody"]["content"]] if "requestBody" in row else []
        bodies += [answer["content"] for answer in row["responses"].values() if "content" in answer]
        for media in (media for body in bodies for media in body.values() if "example" in media):
            validator = Draft202012Validator({**media["schema"], "components": components}, validate_formats=True)
            validator.validate(media["example"])
            shown += 1
    assert shown > 200
    assert len(EXAMPLES) > 20


def test_bodies_say_that_unknown_fields_are_refused(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for operation in OPERATIONS:
        if operation.has_body and operation.takes.__name__ != "Nothing":
            assert schemas[operation.takes.__name__]["additionalProperties"] is False, operation.name
    assert schemas["ExecCommand"]["required"] == ["cmd"]


def test_the_list_of_codes_is_closed(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name in ("Problem", "ErrorEvent"):
        assert schemas[name]["properties"]["code"]["enum"] == sorted(code.value for code in Code)


def test_a_body_is_required_where_a_request_without_one_is_refused(document: dict[str, Any]) -> None:
    paths = document["paths"]
    assert paths["/api/v1/sandboxes"]["post"]["requestBody"]["required"] is True
    assert paths["/api/v1/sandboxes/{ref}"]["patch"]["requestBody"]["required"] is True
    assert paths["/api/v1/sandboxes/{ref}/fork"]["post"]["requestBody"]["required"] is False
    assert "requestBody" not in paths["/api/v1/sandboxes/{ref}/stop"]["post"]


def test_only_public_operations_go_without_a_token(document: dict[str, Any]) -> None:
    for operation in OPERATIONS:
        row = document["paths"][operation.path][operation.method.lower()]
        assert (row.get("security") == []) is operation.public
    schemes = set(document["components"]["securitySchemes"])
    assert {name for each in document["security"] for name in each} == schemes
    assert "token" in schemes


def test_what_creates_takes_a_key_and_nothing_else_does(document: dict[str, Any]) -> None:
    key = {"$ref": "#/components/parameters/idempotency_key"}
    for operation in OPERATIONS:
        row = document["paths"][operation.path][operation.method.lower()]
        assert (key in row["parameters"]) is operation.creates
    assert {"create_sandbox", "fork_sandbox", "create_volume"} <= {each.name for each in OPERATIONS if each.creates}
    assert not {"stop_sandbox", "start_sandbox"} & {each.name for each in OPERATIONS if each.creates}


def test_every_answer_has_a_request_id(document: dict[str, Any]) -> None:
    for operation in OPERATIONS:
        row = document["paths"][operation.path][operation.method.lower()]
        for status, answer in row["responses"].items():
            assert "X-Request-ID" in answer["headers"]
            assert ("Retry-After" in answer["headers"]) is (status in ("429", "503"))


def test_a_streaming_operation_offers_both_forms(document: dict[str, Any]) -> None:
    content = document["paths"]["/api/v1/sandboxes/{ref}/exec"]["post"]["responses"]["200"]["content"]
    assert set(content) == {"application/json", "application/x-ndjson"}
    lines = {each["$ref"].rpartition("/")[2] for each in content["application/x-ndjson"]["schema"]["oneOf"]}
    assert {"StdoutEvent", "StderrEvent", "ExitEvent", "ErrorEvent"} <= lines
    events = document["paths"]["/api/v1/events"]["get"]["responses"]["200"]["content"]["text/event-stream"]
    assert events["schema"]["properties"]["data"]["contentSchema"] == {"$ref": "#/components/schemas/EventView"}


def test_queries_and_path_parameters_are_described(document: dict[str, Any]) -> None:
    listing = document["paths"]["/api/v1/sandboxes"]["get"]["parameters"]
    assert {(each["name"], each["in"]) for each in listing if "name" in each} == {
        ("label", "query"),
        ("limit", "query"),
        ("cursor", "query"),
    }
    one = document["paths"]["/api/v1/sandboxes/{ref}"]["get"]["parameters"]
    assert [(each["name"], each["in"], each["required"]) for each in one if "name" in each] == [("ref", "path", True)]


def test_the_page_shows_every_operation_and_needs_nothing_from_anywhere(document: dict[str, Any]) -> None:
    page = docs_page(document)
    seen: list[str] = []
    links: list[str] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            values = dict(attrs)
            assert tag not in ("script", "link", "img", "iframe")
            seen.extend([values["id"] or ""] if tag == "details" else [])
            links.extend([values["href"] or ""] if tag == "a" else [])

    Reader().feed(page)
    assert sorted(seen) == sorted(row["operationId"] for row in described(document))
    assert links == ["/openapi.json"]
    assert set(OTHER_PATHS) <= set(document["paths"])
