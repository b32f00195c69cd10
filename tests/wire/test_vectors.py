"""The one table of the protocol: every frame type with its bytes. It drives the encoder and the decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from hearth.wire import frames, messages
from hearth.wire.frames import Decoder, Frame, FrameType
from hearth.wire.record import Record

Parse = Callable[[bytes], object]


@dataclass(frozen=True, kw_only=True)
class Vector:
    """``wire`` is what stands on the wire, ``value`` what it means, ``parse`` how a payload is read back."""

    type: FrameType
    wire: bytes
    value: object
    parse: Parse

    @property
    def id(self) -> str:
        return f"{self.type.name}-{self.wire[5:25]!r}"


def raw(type_: FrameType, payload: bytes, header: str) -> Vector:
    return Vector(type=type_, wire=bytes.fromhex(header) + payload, value=payload, parse=bytes)


def empty(type_: FrameType, wire: str) -> Vector:
    return raw(type_, b"", wire)


def packed(type_: FrameType, value: object, parse: Parse, wire: str) -> Vector:
    return Vector(type=type_, wire=bytes.fromhex(wire), value=value, parse=parse)


def text(value: str, header: str) -> Vector:
    return Vector(
        type=FrameType.ERROR, wire=bytes.fromhex(header) + value.encode(), value=value, parse=lambda data: data.decode()
    )


def body(type_: FrameType, value: Record, header: str, json: str) -> Vector:
    return Vector(
        type=type_,
        wire=bytes.fromhex(header) + json.encode("ascii"),
        value=value,
        parse=lambda data: messages.decode(type(value), data),
    )


def array(type_: FrameType, value: list[object], cls: type[Record], header: str, json: str) -> Vector:
    return Vector(
        type=type_,
        wire=bytes.fromhex(header) + json.encode("ascii"),
        value=value,
        parse=lambda data: messages.decode_list(cls, data),
    )


OK = messages.Status(status="ok")
OK_JSON = '{"status":"ok"}'
SESSION = messages.SessionInfo(
    session_id="s1", argv="sleep 9", tty=True, running=False, exit_code=-1, attached=True, created_at=1_700_000_000
)
SESSION_JSON = (
    '{"session_id":"s1","argv":"sleep 9","tty":true,"running":false,"exit_code":-1,'
    '"attached":true,"created_at":1700000000}'
)
INIT_SESSION = messages.SessionInfo(
    session_id="init", argv="sh", tty=False, running=True, attached=False, created_at=1, restarts=2, healthy=False
)
INIT_SESSION_JSON = (
    '{"session_id":"init","argv":"sh","tty":false,"running":true,"attached":false,"created_at":1,'
    '"restarts":2,"healthy":false}'
)
CONFIG_WITH_INIT_JSON = (
    '{"sandbox_id":"s","hostname":"h","token":"","unix_time_ns":1,"init":"x","init_restart":"on-failure",'
    '"init_health":{"argv":["ok"],"interval_sec":0.5,"retries":2}}'
)
MACHINE_ID = "0123456789abcdef" * 2
CONFIG_OF_A_WAKE_JSON = (
    f'{{"sandbox_id":"s","hostname":"h","token":"","unix_time_ns":1,"machine_id":"{MACHINE_ID}","generation":7}}'
)
FILE = messages.FileInfo(name="é", size=3, mode="0644", is_dir=False, mtime=1)
FILE_JSON = '{"name":"\\u00e9","size":3,"mode":"0644","is_dir":false,"mtime":1}'
UNDECODABLE = messages.FileInfo(name="\udcff", size=0, mode="0755", is_dir=True, mtime=-1)
UNDECODABLE_JSON = '{"name":"\\udcff","size":0,"mode":"0755","is_dir":true,"mtime":-1}'

VECTORS = [
    raw(FrameType.STDIN, b"hi", "00000003 01"),
    empty(FrameType.STDIN, "00000001 01"),
    raw(FrameType.STDOUT, b"\x00\xff\n", "00000004 02"),
    raw(FrameType.STDERR, bytes(300), "0000012d 03"),
    packed(FrameType.RESIZE, (40, 120), frames.parse_resize, "00000005 04 0028 0078"),
    packed(FrameType.RESIZE, (0, 65_535), frames.parse_resize, "00000005 04 0000 ffff"),
    packed(FrameType.EXIT, 0, frames.parse_exit, "00000005 05 00000000"),
    packed(FrameType.EXIT, -1, frames.parse_exit, "00000005 05 ffffffff"),
    packed(FrameType.EXIT, 137, frames.parse_exit, "00000005 05 00000089"),
    packed(FrameType.EXIT, -(2**31), frames.parse_exit, "00000005 05 80000000"),
    text("start: no such file", "00000014 06"),
    text("", "00000001 06"),
    empty(FrameType.KILL, "00000001 07"),
    body(FrameType.EXEC_REQ, messages.ExecRequest(argv=["true"]), "00000012 10", '{"argv":["true"]}'),
    body(FrameType.EXEC_REQ, messages.ExecRequest(), "00000003 10", "{}"),
    body(
        FrameType.EXEC_REQ,
        messages.ExecRequest(argv=["sh"], env={"A": "ü"}, cwd="/t", tty=True, rows=40, cols=120, timeout_sec=1.5),
        "00000062 10",
        '{"argv":["sh"],"env":{"A":"\\u00fc"},"cwd":"/t","tty":true,"rows":40,"cols":120,"timeout_sec":1.5}',
    ),
    raw(FrameType.AUTH, b"\x01token", "00000007 11"),
    body(
        FrameType.CONFIGURE,
        messages.MachineConfig(
            sandbox_id="sb-1",
            hostname="box",
            token="t",
            unix_time_ns=1,
            files={"/e": messages.FileContent(content="", mode="0600")},
            volumes=[messages.VolumeMount(device="/dev/vdb", mount="/v", read_only=True)],
            net=messages.NetworkConfig(ip="10.0.0.2/30", gateway="10.0.0.1"),
        ),
        "000000e0 12",
        '{"sandbox_id":"sb-1","hostname":"box","token":"t","unix_time_ns":1,"files":{"/e":{"content":"","mode":"0600"}},'
        '"volumes":[{"device":"/dev/vdb","mount":"/v","read_only":true}],'
        '"net":{"ip":"10.0.0.2/30","gateway":"10.0.0.1"}}',
    ),
    body(
        FrameType.CONFIGURE,
        messages.MachineConfig(
            sandbox_id="s",
            hostname="h",
            token="",
            unix_time_ns=1,
            init="x",
            init_restart="on-failure",
            init_health=messages.InitHealth(argv=["ok"], interval_sec=0.5, retries=2),
        ),
        "000000a2 12",
        CONFIG_WITH_INIT_JSON,
    ),
    body(FrameType.SESSION_INFO, INIT_SESSION, "0000007a 33", INIT_SESSION_JSON),
    body(FrameType.CONFIGURED, OK, "00000010 13", OK_JSON),
    body(FrameType.FWD_REQ, messages.ForwardRequest(port=8080), "0000000e 20", '{"port":8080}'),
    body(FrameType.FWD_RESP, OK, "00000010 21", OK_JSON),
    body(
        FrameType.FWD_RESP,
        messages.Status(status="error", message="refused"),
        "00000027 21",
        '{"status":"error","message":"refused"}',
    ),
    empty(FrameType.EXEC_LIST_REQ, "00000001 30"),
    array(FrameType.EXEC_LIST_RESP, [], messages.SessionInfo, "00000003 31", "[]"),
    array(FrameType.EXEC_LIST_RESP, [SESSION], messages.SessionInfo, "00000079 31", f"[{SESSION_JSON}]"),
    body(FrameType.EXEC_KILL, messages.ExecKillRequest(session_id="s1"), "00000014 32", '{"session_id":"s1"}'),
    body(FrameType.SESSION_INFO, SESSION, "00000077 33", SESSION_JSON),
    empty(FrameType.ACTIVITY_REQ, "00000001 40"),
    body(
        FrameType.ACTIVITY_RESP,
        messages.ActivityInfo(last_activity_unix=1_700_000_000, active_sessions=2, attached_sessions=0),
        "0000004c 41",
        '{"last_activity_unix":1700000000,"active_sessions":2,"attached_sessions":0}',
    ),
    body(
        FrameType.FILE_READ_REQ,
        messages.FileReadRequest(path="/etc/hosts", offset=2, limit=10, max_bytes=100),
        "0000003c 50",
        '{"path":"/etc/hosts","offset":2,"limit":10,"max_bytes":100}',
    ),
    body(
        FrameType.FILE_READ_RESP,
        messages.FileReadResponse(size=0, mode="0444"),
        "00000019 51",
        '{"size":0,"mode":"0444"}',
    ),
    body(
        FrameType.FILE_WRITE_REQ,
        messages.FileWriteRequest(path="/a", size=5, mode="0600"),
        "00000025 52",
        '{"path":"/a","size":5,"mode":"0600"}',
    ),
    body(FrameType.FILE_WRITE_RESP, OK, "00000010 53", OK_JSON),
    body(FrameType.FILE_STAT_REQ, messages.PathRequest(path="/a"), "0000000e 54", '{"path":"/a"}'),
    body(FrameType.FILE_STAT_RESP, FILE, "00000042 55", FILE_JSON),
    body(FrameType.FILE_LS_REQ, messages.PathRequest(path="/"), "0000000d 56", '{"path":"/"}'),
    array(
        FrameType.FILE_LS_RESP,
        [FILE, UNDECODABLE],
        messages.FileInfo,
        "00000086 57",
        f"[{FILE_JSON},{UNDECODABLE_JSON}]",
    ),
    empty(FrameType.STDIN_EOF, "00000001 60"),
    packed(FrameType.SIGNAL, 15, frames.parse_signal, "00000002 61 0f"),
    body(
        FrameType.FILE_MKDIR_REQ,
        messages.MakeDirectoryRequest(path="/a/b", mode="0700"),
        "0000001e 62",
        '{"path":"/a/b","mode":"0700"}',
    ),
    body(FrameType.FILE_MKDIR_RESP, OK, "00000010 63", OK_JSON),
    body(
        FrameType.FILE_REMOVE_REQ,
        messages.RemoveRequest(path="/a", recursive=True),
        "0000001f 64",
        '{"path":"/a","recursive":true}',
    ),
    body(FrameType.FILE_REMOVE_RESP, OK, "00000010 65", OK_JSON),
    body(
        FrameType.FILE_MOVE_REQ,
        messages.MoveRequest(path="/a", to="/b", overwrite=True),
        "00000029 66",
        '{"path":"/a","to":"/b","overwrite":true}',
    ),
    body(FrameType.FILE_MOVE_RESP, OK, "00000010 67", OK_JSON),
    body(
        FrameType.FILE_CHMOD_REQ,
        messages.ChangeModeRequest(path="/a", mode="0755"),
        "0000001c 68",
        '{"path":"/a","mode":"0755"}',
    ),
    body(FrameType.FILE_CHMOD_RESP, OK, "00000010 69", OK_JSON),
    body(FrameType.TAR_READ_REQ, messages.PathRequest(path="/a"), "0000000e 6a", '{"path":"/a"}'),
    body(FrameType.TAR_READ_RESP, OK, "00000010 6b", OK_JSON),
    body(FrameType.TAR_WRITE_REQ, messages.TarWriteRequest(path="/a"), "0000000e 6c", '{"path":"/a"}'),
    body(FrameType.TAR_WRITE_RESP, OK, "00000010 6d", OK_JSON),
    body(
        FrameType.WATCH_REQ,
        messages.WatchRequest(path="/a", recursive=True),
        "0000001f 6e",
        '{"path":"/a","recursive":true}',
    ),
    body(FrameType.WATCH_RESP, OK, "00000010 6f", OK_JSON),
    body(
        FrameType.WATCH_EVENT,
        messages.WatchEvent(kind="moved", path="/a/x", to="/a/y"),
        "0000002b 70",
        '{"kind":"moved","path":"/a/x","to":"/a/y"}',
    ),
    empty(FrameType.PROBE, "00000001 71"),
    empty(FrameType.PORTS_REQ, "00000001 72"),
    empty(FrameType.POWER_OFF_REQ, "00000001 76"),
    body(FrameType.POWER_OFF_RESP, OK, "00000010 77", OK_JSON),
    array(
        FrameType.PORTS_RESP,
        [messages.PortInfo(port=80, address="0.0.0.0", process="nginx", pid=7)],
        messages.PortInfo,
        "0000003c 73",
        '[{"port":80,"address":"0.0.0.0","process":"nginx","pid":7}]',
    ),
    body(
        FrameType.CONFIGURE,
        messages.MachineConfig(
            sandbox_id="s", hostname="h", token="", unix_time_ns=1, machine_id=MACHINE_ID, generation=7
        ),
        "0000007d 12",
        CONFIG_OF_A_WAKE_JSON,
    ),
    body(
        FrameType.ACTIVITY_RESP,
        messages.ActivityInfo(
            last_activity_unix=1,
            active_sessions=0,
            attached_sessions=0,
            cpu_ms=1250,
            memory=messages.MemoryInfo(total_mib=256, available_mib=190),
            frozen=True,
        ),
        "0000008e 41",
        '{"last_activity_unix":1,"active_sessions":0,"attached_sessions":0,"cpu_ms":1250,'
        '"memory":{"total_mib":256,"available_mib":190},"frozen":true}',
    ),
    body(
        FrameType.FREEZE_REQ,
        messages.FreezeRequest(timeout_sec=2.5, thaw_after_sec=5.0),
        "00000029 78",
        '{"timeout_sec":2.5,"thaw_after_sec":5.0}',
    ),
    array(
        FrameType.FREEZE_RESP,
        [messages.FrozenMount(mount="/", used_bytes=1, total_bytes=4096, available_bytes=4000)],
        messages.FrozenMount,
        "00000049 79",
        '[{"mount":"/","used_bytes":1,"total_bytes":4096,"available_bytes":4000}]',
    ),
    empty(FrameType.THAW_REQ, "00000001 7a"),
    body(FrameType.THAW_RESP, OK, "00000010 7b", OK_JSON),
    packed(FrameType.TIME_SYNC, (1_900_000_000 * 10**9, b""), frames.parse_time_sync, "00000009 7c 1a5e27eef13e0000"),
    packed(FrameType.TIME_SYNC, (1, b"\xab\xcd"), frames.parse_time_sync, "0000000b 7c 0000000000000001 abcd"),
    body(
        FrameType.VOLUMES_REQ,
        messages.VolumesRequest(volumes=[messages.VolumeMount(device="/dev/vdb", mount="/data")]),
        "00000034 82",
        '{"volumes":[{"device":"/dev/vdb","mount":"/data"}]}',
    ),
    body(FrameType.VOLUMES_RESP, OK, "00000010 83", OK_JSON),
    body(
        FrameType.EXEC_REQ,
        messages.ExecRequest(argv=["a"], keep="ex-1", after=5),
        "00000027 10",
        '{"argv":["a"],"keep":"ex-1","after":5}',
    ),
    body(
        FrameType.EXEC_KEPT,
        messages.KeptInfo(position=5, running=True, input_bytes=2, input_ended=False),
        "00000042 85",
        '{"position":5,"running":true,"input_bytes":2,"input_ended":false}',
    ),
    packed(FrameType.OUTPUT_ACK, 2**40 + 1, frames.parse_ack, "00000009 86 0000010000000001"),
    empty(FrameType.RELEASE, "00000001 88"),
    empty(FrameType.LAST_WORDS_REQ, "00000001 80"),
    body(
        FrameType.LAST_WORDS_RESP,
        messages.LastWords(uptime_sec=9.5, oom_kills=[messages.OomKill(process="eater", pid=77, seconds=8.25)]),
        "0000004d 81",
        '{"uptime_sec":9.5,"oom_kills":[{"process":"eater","pid":77,"seconds":8.25}]}',
    ),
    body(
        FrameType.FILE_READ_RANGE_REQ,
        messages.FileRangeRequest(path="/a", start=10, length=5),
        "00000024 74",
        '{"path":"/a","start":10,"length":5}',
    ),
    body(
        FrameType.FILE_READ_RANGE_RESP,
        messages.FileReadResponse(size=15, mode="0644"),
        "0000001a 75",
        '{"size":15,"mode":"0644"}',
    ),
]

each_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.id)


def encode(vector: Vector) -> bytes:
    """Encode a vector's value with the encoder made for it."""
    match vector.type, vector.value:
        case FrameType.EXIT, int(code):
            return frames.encode_exit(code)
        case FrameType.RESIZE, (int(rows), int(columns)):
            return frames.encode_resize(rows, columns)
        case FrameType.SIGNAL, int(number):
            return frames.encode_signal(number)
        case FrameType.TIME_SYNC, (int(unix_time_ns), bytes(entropy)):
            return frames.encode_time_sync(unix_time_ns, entropy)
        case FrameType.ERROR, str(words):
            return frames.encode_error(words)
        case FrameType.OUTPUT_ACK, int(position):
            return frames.encode_ack(position)
        case _, bytes(payload):
            return frames.encode(vector.type, payload)
        case _, list(items):
            return frames.encode(vector.type, messages.encode_list(items))
        case _, Record() as message:
            return frames.encode(vector.type, messages.encode(message))
    raise AssertionError(vector)


@each_vector
def test_the_encoder_writes_the_bytes_of_the_table(vector: Vector) -> None:
    assert encode(vector) == vector.wire


@each_vector
def test_the_decoder_reads_the_bytes_in_one_piece(vector: Vector) -> None:
    decoder = Decoder()
    decoder.feed(vector.wire)
    (frame,) = decoder.frames()
    assert frame.type == vector.type
    assert vector.parse(frame.payload) == vector.value
    decoder.eof()


@each_vector
def test_the_decoder_reads_the_bytes_one_by_one(vector: Vector) -> None:
    decoder = Decoder()
    for byte in vector.wire[:-1]:
        decoder.feed(bytes((byte,)))
        assert decoder.next() is None
    decoder.feed(vector.wire[-1:])
    assert decoder.next() == Frame(vector.type, vector.wire[5:])
    assert decoder.next() is None
    decoder.eof()


@each_vector
def test_try_parse_wants_the_whole_frame_and_takes_no_more(vector: Vector) -> None:
    for size in range(len(vector.wire)):
        assert frames.try_parse(vector.wire[:size]) is None
    surrounded = b"\xff" + vector.wire + b"\xff\xff"
    for buffer in (surrounded, bytearray(surrounded), memoryview(surrounded)):
        assert frames.try_parse(buffer, 1) == (vector.type, vector.wire[5:], len(vector.wire))


def test_the_whole_table_reads_back_from_one_stream() -> None:
    decoder = Decoder()
    decoder.feed(b"".join(vector.wire for vector in VECTORS))
    assert list(decoder.frames()) == [Frame(vector.type, vector.wire[5:]) for vector in VECTORS]


def test_every_frame_type_has_a_vector() -> None:
    assert {vector.type for vector in VECTORS} == set(FrameType)
