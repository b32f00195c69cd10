"""What the contract takes and refuses, by table."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from hearth.api.limits import MAX_TTL_S
from hearth.api.schemas import CreateSandbox, Event, ExecCommand, ExitEvent, StderrEvent, StdoutEvent
from hearth.api.sleep_schemas import ChangeSandbox, CopySandbox, NamedCopy, StartSandbox, WarmTemplate
from hearth.bounds import MAX_COPIES

TAKEN: list[tuple[type[Any], dict[str, Any]]] = [
    (CreateSandbox, {}),
    (CreateSandbox, {"name": "a"}),
    (CreateSandbox, {"name": "a" * 63, "cpus": 64, "memory_mb": 128}),
    (CreateSandbox, {"env": {"_A1": "line\nline"}, "labels": {"team/x": "", "a": "b=c"}}),
    (CreateSandbox, {"from": "before-the-upgrade", "keep_hot": True, "ttl_s": 1, "idle_pause_s": 0.5}),
    (CreateSandbox, {"image": None, "cpus": None, "ttl_s": MAX_TTL_S, "idle_stop_s": MAX_TTL_S}),
    (ChangeSandbox, {}),
    (ChangeSandbox, {"name": "b", "keep_hot": False, "labels_add": {"a": "b"}, "labels_remove": ["c"], "ttl_s": 60}),
    (ChangeSandbox, {"ttl_s": None}),
    (StartSandbox, {"force": True}),
    (CopySandbox, {}),
    (CopySandbox, {"name": "copy", "count": MAX_COPIES}),
    (NamedCopy, {"name": "before"}),
    (WarmTemplate, {}),
    (WarmTemplate, {"image": "alpine", "cpus": 2, "memory_mb": 512}),
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
    (CreateSandbox, {"from": "../other"}),
    (CreateSandbox, {"from_": "other"}),
    (CreateSandbox, {"ttl_s": 0}),
    (CreateSandbox, {"ttl_s": MAX_TTL_S + 1}),
    (CreateSandbox, {"ttl_s": 1.5}),
    (CreateSandbox, {"idle_pause_s": 0}),
    (CreateSandbox, {"idle_stop_s": -1}),
    (CreateSandbox, {"keep_hot": 1}),
    (ChangeSandbox, {"cpus": 2}),
    (ChangeSandbox, {"name": "Web"}),
    (ChangeSandbox, {"labels_remove": [""]}),
    (ChangeSandbox, {"labels_add": {"a": None}}),
    (ChangeSandbox, {"ttl_s": 0}),
    (StartSandbox, {"force": "yes"}),
    (CopySandbox, {"count": 0}),
    (CopySandbox, {"count": MAX_COPIES + 1}),
    (NamedCopy, {}),
    (NamedCopy, {"name": None}),
    (WarmTemplate, {"memory_mb": 1}),
    (ExecCommand, {}),
    (ExecCommand, {"cmd": []}),
    (ExecCommand, {"cmd": "true"}),
    (ExecCommand, {"cmd": ["a\x00b"]}),
    (ExecCommand, {"cmd": ["a"], "timeout_sec": 0}),
    (ExecCommand, {"cmd": ["a"], "timeout_sec": 86401}),
    (ExecCommand, {"cmd": ["a"], "timeout_sec": -1}),
    (ExecCommand, {"cmd": ["a"], "cwd": ""}),
    (ExecCommand, {"cmd": ["a"], "stdin_encoding": "latin-1"}),
    (ExecCommand, {"cmd": ["a"], "shell": True}),
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


def test_a_time_to_live_that_is_taken_away_is_not_one_that_is_left_alone() -> None:
    left_alone = msgspec.json.decode(b"{}", type=ChangeSandbox)
    taken_away = msgspec.json.decode(b'{"ttl_s":null}', type=ChangeSandbox)
    assert (left_alone.ttl_s, taken_away.ttl_s) == (msgspec.UNSET, None)
    assert [msgspec.json.encode(each) for each in (left_alone, taken_away)] == [b"{}", b'{"ttl_s":null}']


def test_a_process_that_read_schemas_ends_as_it_should() -> None:
    """The collection of structs at the interpreter's end killed about one process in five."""
    for _ in range(8):
        program = "from hearth.api.openapi import openapi_document; openapi_document()"
        assert subprocess.run([sys.executable, "-c", program], timeout=240, check=False).returncode == 0
