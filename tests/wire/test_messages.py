from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.wire import messages
from hearth.wire.messages import BadMessage, ExecRequest, FileInfo, InitHealth, MachineConfig, SessionInfo
from hearth.wire.record import Record, fields

MESSAGE_CLASSES = [
    cls for cls in vars(messages).values() if isinstance(cls, type) and issubclass(cls, Record) and cls is not Record
]
SESSION = {"session_id": "s1", "argv": "a", "tty": True, "running": True, "attached": False, "created_at": 5}
MACHINE = {"sandbox_id": "s", "hostname": "h", "token": "t", "unix_time_ns": 1}

unicode_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
file_names = st.binary(max_size=30).map(lambda name: name.replace(b"\0", b"").decode(errors="surrogateescape"))
wire_text = unicode_text | file_names
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("cls", "body", "field"),
    [
        (ExecRequest, {"argv": "true"}, "ExecRequest.argv: expected an array"),
        (ExecRequest, {"argv": ["a", 1]}, "ExecRequest.argv[1]: expected str"),
        (ExecRequest, {"argv": [None]}, "ExecRequest.argv[0]: expected str"),
        (ExecRequest, {"cwd": "\ud800"}, "ExecRequest.cwd: contains a surrogate that stands for no byte"),
        (ExecRequest, {"argv": ["a\0b"]}, "ExecRequest.argv[0]: contains a NUL character"),
        (ExecRequest, {"env": []}, "ExecRequest.env: expected an object"),
        (ExecRequest, {"env": {"A": 1}}, "ExecRequest.env['A']: expected str"),
        (ExecRequest, {"env": {"A\0": "b"}}, "ExecRequest.env['A\\x00']: contains a NUL character"),
        (ExecRequest, {"cwd": 1}, "ExecRequest.cwd: expected str"),
        (ExecRequest, {"tty": 1}, "ExecRequest.tty: expected bool"),
        (ExecRequest, {"rows": "24"}, "ExecRequest.rows: expected int"),
        (ExecRequest, {"rows": True}, "ExecRequest.rows: expected int"),
        (ExecRequest, {"rows": 24.0}, "ExecRequest.rows: expected int"),
        (ExecRequest, {"rows": -1}, "ExecRequest.rows: outside 0..65535"),
        (ExecRequest, {"cols": 65_536}, "ExecRequest.cols: outside 0..65535"),
        (ExecRequest, {"max_idle_sec": 2**63}, "ExecRequest.max_idle_sec: outside"),
        (ExecRequest, {"timeout_sec": "1"}, "ExecRequest.timeout_sec: expected float"),
        (ExecRequest, {"timeout_sec": 10**30}, "ExecRequest.timeout_sec: outside"),
        (ExecRequest, [], "ExecRequest: expected an object"),
        (ExecRequest, None, "ExecRequest: expected an object"),
        (SessionInfo, {"session_id": "s1"}, "SessionInfo: field 'argv' is missing"),
        (SessionInfo, {**SESSION, "created_at": None}, "SessionInfo: field 'created_at' is missing"),
        (messages.ForwardRequest, {"port": 0}, "ForwardRequest.port: outside 1..65535"),
        (MachineConfig, {**MACHINE, "files": {"/a": 1}}, "MachineConfig.files['/a']: expected an object"),
        (MachineConfig, {**MACHINE, "files": {"/a": {}}}, "MachineConfig.files['/a']: field 'content' is missing"),
        (MachineConfig, {**MACHINE, "volumes": [{"device": 1}]}, "MachineConfig.volumes[0].device: expected str"),
        (MachineConfig, {**MACHINE, "net": {"ip": "a"}}, "MachineConfig.net: field 'gateway' is missing"),
    ],
)
def test_a_wrong_field_is_refused_by_name(cls: type[Record], body: object, field: str) -> None:
    with pytest.raises(BadMessage) as caught:
        messages.decode(cls, json.dumps(body).encode())
    assert str(caught.value).startswith(field)


def test_a_wrong_item_of_an_array_is_refused_by_its_place() -> None:
    with pytest.raises(BadMessage, match=r"^SessionInfo\[1\].tty: expected bool$"):
        messages.decode_list(SessionInfo, json.dumps([SESSION, {**SESSION, "tty": "no"}]).encode())
    with pytest.raises(BadMessage, match=r"^SessionInfo: expected an array$"):
        messages.decode_list(SessionInfo, b"{}")


@pytest.mark.parametrize("cls", MESSAGE_CLASSES, ids=lambda cls: cls.__name__)
def test_null_equals_absent_and_unknown_fields_are_ignored(cls: type[Any]) -> None:
    required = {**SESSION, **MACHINE, "path": "/", "to": "/b", "mode": "0644", "size": 1, "start": 1, "status": "ok"}
    required |= {"content": "", "device": "d", "mount": "m", "ip": "i", "gateway": "g", "port": 1, "address": "a"}
    required |= {"last_activity_unix": 1, "active_sessions": 1, "attached_sessions": 1, "name": "n", "is_dir": True}
    required |= {"mtime": 1, "pid": 1, "output_file": "o", "kind": "created"}
    required |= {"total_mib": 1, "available_mib": 1, "used_bytes": 1, "total_bytes": 1, "available_bytes": 1}
    required |= {"process": "p", "seconds": 1.0, "uptime_sec": 1.0}
    required |= {"position": 1, "input_bytes": 1, "input_ended": True}
    if cls is InitHealth:
        required["argv"] = ["a"]
    optional = {field.name for field in fields(cls) if not field.is_required}
    absent = {field.name: required[field.name] for field in fields(cls) if field.name not in optional}
    null = {**absent, **dict.fromkeys(optional), "unknown": [1]}
    assert messages.decode(cls, json.dumps(null).encode()) == messages.decode(cls, json.dumps(absent).encode())


@given(st.binary(max_size=200) | json_value.map(lambda value: json.dumps(value).encode()))
def test_whatever_comes_only_bad_message_is_raised(payload: bytes) -> None:
    for cls in MESSAGE_CLASSES:
        try:
            messages.decode(cls, payload)
            messages.decode_list(cls, payload)
        except BadMessage as error:
            assert str(error)


@given(
    st.builds(
        ExecRequest,
        argv=st.lists(wire_text),
        env=st.dictionaries(wire_text, wire_text),
        cwd=st.none() | wire_text,
        tty=st.booleans(),
        rows=st.integers(0, 65_535),
        max_idle_sec=st.integers(0, 2**62),
        timeout_sec=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_a_request_survives_the_round_trip(request_: ExecRequest) -> None:
    assert messages.decode(ExecRequest, messages.encode(request_)) == request_


def test_a_configuration_survives_the_round_trip_with_all_its_parts() -> None:
    config = MachineConfig(
        **MACHINE,  # type: ignore[arg-type]
        entropy="AAAA",
        env={"A": "b"},
        files={"/etc/x": messages.FileContent(content="eA==", mode="0600")},
        volumes=[messages.VolumeMount(device="/dev/vdb", mount="/data", fs="xfs", read_only=True)],
        init="/init",
        dns=["10.0.0.1"],
        user="sandbox",
        net=messages.NetworkConfig(ip="10.0.0.2/30", gateway="10.0.0.1"),
    )
    assert messages.decode(MachineConfig, messages.encode(config)) == config


def test_a_list_of_files_survives_the_round_trip() -> None:
    files = [FileInfo(name=f"f\udcff{n}", size=n, mode="0644", is_dir=False, mtime=n) for n in range(3)]
    assert messages.decode_list(FileInfo, messages.encode_list(files)) == files


def test_secrets_stay_out_of_representations() -> None:
    config = MachineConfig(**{**MACHINE, "token": "hush"}, entropy="hush", env={"A": "hush"})  # type: ignore[arg-type]
    request = ExecRequest(argv=["a"], env={"A": "hush"})
    assert "hush" not in repr(config) + repr(request)
