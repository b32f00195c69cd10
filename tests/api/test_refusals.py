"""What breaks the contract is told in words: the field, what is wrong with it and what to do, and no secret."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from hearth.api.event_schemas import FollowEvents
from hearth.api.exec_schemas import KillExec
from hearth.api.file_schemas import ReadFile, WriteFile
from hearth.api.refusals import MAX_REASON, refusal
from hearth.api.schemas import CreateSandbox, ExecCommand, ListSandboxes
from hearth.api.volume_schemas import AttachVolume, CreateVolume
from hearth.errors import InvalidInput

DNS = "use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
REFUSED: list[tuple[type[Any], Any, str, str, str]] = [
    (CreateSandbox, {"name": "Web"}, "name", "name 'Web' is not a DNS label", DNS),
    (CreateSandbox, {"image": "../x"}, "image", "image '../x' is not a DNS label", DNS),
    (CreateSandbox, {"name": "a" * 64}, "name", "name has more than 63 characters", "use at most 63"),
    (CreateSandbox, {"name": 3}, "name", "name is a whole number", "give text or nothing"),
    (CreateSandbox, {"cpus": 0}, "cpus", "cpus is 0", "use 1 or more"),
    (CreateSandbox, {"cpus": 65}, "cpus", "cpus is 65", "use 64 or less"),
    (CreateSandbox, {"cpus": "2"}, "cpus", "cpus is text", "give a whole number"),
    (CreateSandbox, {"env": {"B": "x", "A": "\0"}}, "env.A", "env.A holds a NUL character", "leave it out"),
    (CreateSandbox, {"env": {"B": "x", "A": 5}}, "env.A", "env.A is a whole number", "give text"),
    (CreateSandbox, {"env": {"B": "x", "1 A": "x"}}, "env", "env: the name '1 A' is no name of a variable", "letters"),
    (CreateSandbox, {"labels": {"a": "", "": "x"}}, "labels", "labels: the name '' is no key of a label", "letters"),
    (CreateSandbox, {"labels": {"a": "x" * 300}}, "labels.a", "labels.a has more than 253 characters", "253"),
    (CreateSandbox, {"sekrets": []}, "sekrets", "sekrets is not known here", "leave it out"),
    (CreateSandbox, {"volumes": [{"name": "a"}]}, "volumes[0].mount", "volumes[0].mount is missing", "add it"),
    (CreateSandbox, [], "body", "body is a list", "give an object"),
    (ExecCommand, {}, "cmd", "cmd is missing", "add it"),
    (ExecCommand, {"cmd": []}, "cmd", "cmd is empty", "at least 1"),
    (ExecCommand, {"cmd": ["a", "b\0"]}, "cmd[1]", "cmd[1] holds a NUL character", "leave it out"),
    (
        ExecCommand,
        {"cmd": ["a"], "timeout_sec": 1e9},
        "timeout_sec",
        "timeout_sec is 1000000000.0",
        "use 86400 or less",
    ),
    (ExecCommand, {"cmd": ["a"], "stdin_encoding": "x"}, "stdin_encoding", "stdin_encoding: Invalid", "openapi"),
    (FollowEvents, {"type": ["Sandbox"]}, "type[0]", "type[0] 'Sandbox' is no kind of event", "sandbox.running"),
    (KillExec, {"signal": "term"}, "signal", "signal 'term' is no name of a signal", "TERM"),
    (ReadFile, {"path": "etc"}, "path", "path 'etc' is no absolute path", "'/'"),
    (WriteFile, {"path": "/a", "mode": "999"}, "mode", "mode '999' is no mode", "octal"),
    (CreateVolume, {"name": "a b", "size_mb": 16}, "name", "name 'a b' is no name of a volume", "letters"),
    (AttachVolume, {"name": "a", "mount": "srv"}, "mount", "mount 'srv' is no place to mount at", "absolute"),
    (ListSandboxes, {"label": ["a=b", "c"]}, "label[1]", "label[1] 'c' is not of the form key=value", "key=value"),
]


def refuse(schema: type[Any], given: Any) -> InvalidInput:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(given, schema)
    return refusal(str(caught.value), given, whole="body")


@pytest.mark.parametrize(("schema", "given", "field", "details", "resolution"), REFUSED, ids=lambda v: str(v)[:40])
def test_a_refusal_says_where_what_and_what_to_do(
    schema: type[Any], given: Any, field: str, details: str, resolution: str
) -> None:
    refused = refuse(schema, given)
    assert refused.field == field
    assert refused.brief == f"invalid {field}"
    assert refused.details.startswith(details)
    assert resolution in refused.resolution
    assert "regex" not in str(refused)
    assert "`" not in str(refused)


@pytest.mark.parametrize(
    ("schema", "given"),
    [
        (CreateSandbox, {"env": {"KEY": "hunter2\0"}}),
        (ExecCommand, {"cmd": ["login", "hunter2\0"]}),
        (ExecCommand, {"cmd": ["a"], "env": {"KEY": ["hunter2"]}}),
    ],
)
def test_no_value_that_may_be_a_secret_is_told(schema: type[Any], given: Any) -> None:
    assert "hunter2" not in str(refuse(schema, given))


def test_what_came_is_not_sent_back_at_length() -> None:
    for given in ({"cmd": ["a"], "stdin_encoding": "x" * 100_000}, {"cmd": ["a"], "env": {"-" + "x" * 200: ""}}):
        assert len(str(refuse(ExecCommand, given))) < 2 * MAX_REASON


def test_a_place_that_is_not_in_the_values_is_still_named() -> None:
    refused = refusal("Expected `str`, got `int` - at `$.env[...]`", None, whole="body")
    assert (refused.field, refused.details) == ("env.?", "env.? is a whole number")
