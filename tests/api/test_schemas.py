"""What the contract takes and refuses, by table."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from hearth.api.schemas import CreateSandbox, Event, ExecCommand, ExitEvent, StderrEvent, StdoutEvent

TAKEN: list[tuple[type[Any], dict[str, Any]]] = [
    (CreateSandbox, {}),
    (CreateSandbox, {"name": "a"}),
    (CreateSandbox, {"name": "a" * 63, "cpus": 64, "memory_mb": 128}),
    (CreateSandbox, {"env": {"_A1": "line\nline"}, "labels": {"team/x": "", "a": "b=c"}}),
    (ExecCommand, {"cmd": ["true"]}),
    (ExecCommand, {"cmd": ["a"], "timeout_sec": 1}),
    (ExecCommand, {"cmd": ["a"], "timeout_sec": 86400}),
    (ExecCommand, {"cmd": ["a", ""], "cwd": "/", "user": "root", "stdin": "x\x00"}),
]
REFUSED: list[tuple[type[Any], dict[str, Any]]] = [
    (CreateSandbox, {"name": ""}),
    (CreateSandbox, {"name": "Web"}),
    (CreateSandbox, {"name": "web\n"}),
    (CreateSandbox, {"name": "-web"}),
    (CreateSandbox, {"name": "../etc"}),
    (CreateSandbox, {"name": "a" * 64}),
    (CreateSandbox, {"image": "../x"}),
    (CreateSandbox, {"cpus": 0}),
    (CreateSandbox, {"cpus": 65}),
    (CreateSandbox, {"cpus": 1.5}),
    (CreateSandbox, {"cpus": True}),
    (CreateSandbox, {"cpus": "2"}),
    (CreateSandbox, {"memory_mb": 127}),
    (CreateSandbox, {"memory_mb": 10**30}),
    (CreateSandbox, {"memory_mib": 256}),
    (CreateSandbox, {"env": {"A=B": "x"}}),
    (CreateSandbox, {"env": {"A": "\x00"}}),
    (CreateSandbox, {"env": {"A": 1}}),
    (CreateSandbox, {"labels": {"": "x"}}),
    (CreateSandbox, {"labels": {str(number): "" for number in range(65)}}),
    (ExecCommand, {}),
    (ExecCommand, {"cmd": []}),
    (ExecCommand, {"cmd": "true"}),
    (ExecCommand, {"cmd": ["a\x00b"]}),
    (ExecCommand, {"cmd": ["a"], "timeout_sec": 0}),
    (ExecCommand, {"cmd": ["a"], "timeout_sec": 86401}),
    (ExecCommand, {"cmd": ["a"], "timeout_sec": -1}),
    (ExecCommand, {"cmd": ["a"], "cwd": ""}),
    (ExecCommand, {"cmd": ["a"], "stdin_encoding": "latin-1"}),
    (ExecCommand, {"cmd": ["a"], "detach": True}),
]


@pytest.mark.parametrize(("schema", "value"), TAKEN, ids=lambda value: str(value)[:60])
def test_what_is_sane_is_taken(schema: type[Any], value: dict[str, Any]) -> None:
    assert isinstance(msgspec.json.decode(json.dumps(value), type=schema), schema)


@pytest.mark.parametrize(("schema", "value"), REFUSED, ids=lambda value: str(value)[:60])
def test_what_is_not_is_refused(schema: type[Any], value: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(value), type=schema)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (StdoutEvent(data="é"), '{"type":"stdout","data":"é"}'),
        (StderrEvent(data="/w==", encoding="base64"), '{"type":"stderr","data":"/w==","encoding":"base64"}'),
        (ExitEvent(exit_code=0), '{"type":"exit","exit_code":0}'),
    ],
)
def test_an_event_has_its_one_form(event: Event, line: str) -> None:
    assert msgspec.json.encode(event).decode() == line
    assert msgspec.json.decode(line, type=Event) == event
