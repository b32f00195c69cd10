"""Bad bodies and queries are refused with the name of the field."""

from __future__ import annotations

import pytest

from hearth.api.schemas import CreateSandbox, ExecCommand, ListSandboxes, Nothing
from hearth.errors import InvalidInput
from hearth.server.inputs import check_content_type, read_body, read_query

BODIES: list[tuple[type[object], bytes, str]] = [
    (CreateSandbox, b"", "body"),
    (CreateSandbox, b"{", "body"),
    (CreateSandbox, b"not json", "body"),
    (CreateSandbox, b"[]", "body"),
    (CreateSandbox, b"null", "body"),
    (CreateSandbox, b'{"name":"a"} x', "body"),
    (CreateSandbox, b'{"name":"\xff"}', "body"),
    (CreateSandbox, b'{"cpus":NaN}', "body"),
    (CreateSandbox, b'{"cpus":0}', "cpus"),
    (CreateSandbox, b'{"cpus":1e999}', "cpus"),
    (CreateSandbox, b'{"memory_mb":1}', "memory_mb"),
    (CreateSandbox, b'{"name":"A"}', "name"),
    (CreateSandbox, b'{"flavour":[]}', "flavour"),
    (CreateSandbox, b'{"env":{"A B":"x"}}', "env"),
    (CreateSandbox, b'{"env":{"A":1}}', "env.A"),
    (ExecCommand, b"{}", "cmd"),
    (ExecCommand, b'{"cmd":[]}', "cmd"),
    (ExecCommand, b'{"cmd":[1]}', "cmd[0]"),
    (ExecCommand, b'{"cmd":["a"],"timeout_sec":0}', "timeout_sec"),
    (ExecCommand, b'{"cmd":["a"],"tty":true}', "tty"),
    (ExecCommand, b'{"cmd":' + b"[" * 100_000, "cmd[0]"),
]
QUERIES: list[tuple[type[object], bytes, str]] = [
    (ListSandboxes, b"limit=0", "limit"),
    (ListSandboxes, b"limit=1001", "limit"),
    (ListSandboxes, b"limit=many", "limit"),
    (ListSandboxes, b"limit=1&limit=2", "limit"),
    (ListSandboxes, b"label=novalue", "label[0]"),
    (ListSandboxes, b"sort=name", "sort"),
    (Nothing, b"force=1", "force"),
]


@pytest.mark.parametrize(("schema", "body", "field"), BODIES, ids=lambda value: str(value)[:50])
def test_a_bad_body_is_refused_naming_the_field(schema: type[object], body: bytes, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_body(schema, body)
    assert refused.value.field == field
    assert refused.value.resolution
    if field != "body":
        assert field in refused.value.details
        assert field in refused.value.brief


@pytest.mark.parametrize(("schema", "query", "field"), QUERIES, ids=lambda value: str(value)[:50])
def test_a_bad_query_is_refused_naming_the_parameter(schema: type[object], query: bytes, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_query(schema, query)
    assert refused.value.field == field


def test_a_good_query_is_read_with_its_types() -> None:
    query = read_query(ListSandboxes, b"label=a%3Db&label=c=d%20e&limit=7")
    assert query == ListSandboxes(label=["a=b", "c=d e"], limit=7)
    assert read_query(ListSandboxes, b"") == ListSandboxes()


@pytest.mark.parametrize("value", [None, "application/json", "Application/JSON; charset=utf-8"])
def test_json_is_taken_as_it_is_announced(value: str | None) -> None:
    check_content_type(value)


@pytest.mark.parametrize("value", ["text/plain", "application/x-www-form-urlencoded", "application/json-patch", "json"])
def test_other_content_types_are_refused(value: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_content_type(value)
    assert refused.value.field == "Content-Type"
