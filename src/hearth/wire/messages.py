"""The JSON bodies of the wire: one frozen class each, encoded compactly and decoded strictly.

A field that is absent or ``null`` takes its default; an unknown field is ignored; a wrong type is an error that names
the field. Deep, huge or malformed JSON never gets past ``decode``.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from hearth.wire.frames import ProtocolError

Message = TypeVar("Message")


class BadMessage(ProtocolError):
    """A JSON body is not what its frame type promises; the text names the field."""


@dataclass(frozen=True, kw_only=True)
class ExecRequest:
    """Start a command, or attach to a session when ``session_id`` is set. Times in seconds."""

    argv: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None
    tty: bool = False
    rows: int = 24
    cols: int = 80
    session_id: str | None = None
    max_idle_sec: int = 0
    if_detached: bool = False
    detach: bool = False
    output_file: str | None = None
    session: bool = False
    user: str | None = None
    timeout_sec: float | None = None


@dataclass(frozen=True, kw_only=True)
class SessionInfo:
    """One session; ``argv`` is its words joined by a space, ``created_at`` unix seconds."""

    session_id: str
    argv: str
    tty: bool
    running: bool
    exit_code: int | None = None
    attached: bool
    created_at: int


@dataclass(frozen=True, kw_only=True)
class ActivityInfo:
    """When the guest was last busy (unix seconds) and how many sessions it holds."""

    last_activity_unix: int
    active_sessions: int
    attached_sessions: int


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """One directory entry: base name, size in bytes, mode as 4 octal digits, mtime in unix seconds."""

    name: str
    size: int
    mode: str
    is_dir: bool
    mtime: int


@dataclass(frozen=True, kw_only=True)
class FileReadRequest:
    """Read a file; ``offset`` is the 1-based first line, ``limit`` counts lines."""

    path: str
    offset: int | None = None
    limit: int | None = None
    max_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class FileReadResponse:
    """``size`` is the whole file's, whatever part follows."""

    size: int
    mode: str


@dataclass(frozen=True, kw_only=True)
class FileWriteRequest:
    """Write a file atomically; exactly ``size`` bytes follow in STDIN frames."""

    path: str
    size: int
    mode: str | None = None


@dataclass(frozen=True, kw_only=True)
class FileRangeRequest:
    """FILE_READ_RANGE: ``length`` bytes from byte ``start`` (0-based); None is to the end. Answered like FILE_READ."""

    path: str
    start: int = 0
    length: int | None = None


@dataclass(frozen=True, kw_only=True)
class PathRequest:
    """FILE_STAT, FILE_LS and TAR_READ (the path is the top of the archive)."""

    path: str


@dataclass(frozen=True, kw_only=True)
class MakeDirectoryRequest:
    """FILE_MKDIR: parents are made, an existing directory is fine; ``mode`` is octal, for the last one only."""

    path: str
    mode: str | None = None


@dataclass(frozen=True, kw_only=True)
class RemoveRequest:
    """FILE_REMOVE: a file, a symlink itself, an empty directory, or a whole tree when ``recursive``."""

    path: str
    recursive: bool = False


@dataclass(frozen=True, kw_only=True)
class MoveRequest:
    """FILE_MOVE: rename; an existing ``to`` is refused unless ``overwrite``."""

    path: str
    to: str
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class ChangeModeRequest:
    """FILE_CHMOD: ``mode`` is octal, symlinks are followed."""

    path: str
    mode: str
    recursive: bool = False


@dataclass(frozen=True, kw_only=True)
class TarWriteRequest:
    """TAR_WRITE: unpack the archive in the STDIN frames, up to STDIN_EOF, below the directory ``path``, made if missing."""

    path: str


@dataclass(frozen=True, kw_only=True)
class WatchRequest:
    """WATCH: tell the changes of a file or directory until the client goes away."""

    path: str
    recursive: bool = False


@dataclass(frozen=True, kw_only=True)
class WatchEvent:
    """One change. ``kind``: created, modified, removed, moved (``to`` is the new path) or overflow (events were lost).

    Paths are absolute; ``path`` of an overflow is the watched one.
    """

    kind: str
    path: str
    to: str | None = None
    is_dir: bool = False


@dataclass(frozen=True, kw_only=True)
class PortInfo:
    """One listening TCP socket of the guest; ``process`` and ``pid`` where they can be told."""

    port: int
    address: str
    process: str | None = None
    pid: int | None = None


@dataclass(frozen=True, kw_only=True)
class Status:
    """``ok``, or ``error`` with a message."""

    status: str
    message: str | None = None


@dataclass(frozen=True, kw_only=True)
class ForwardRequest:
    port: int


@dataclass(frozen=True, kw_only=True)
class ExecKillRequest:
    session_id: str


@dataclass(frozen=True, kw_only=True)
class ProcessStarted:
    """The one STDOUT frame of a detached exec."""

    pid: int
    output_file: str


@dataclass(frozen=True, kw_only=True)
class FileContent:
    """A small file to put in place at configure time; ``content`` is base64."""

    content: str
    mode: str = "0644"


@dataclass(frozen=True, kw_only=True)
class VolumeMount:
    """A block device of the machine and where it is mounted."""

    device: str
    mount: str
    fs: str = "ext4"
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The guest's address as CIDR and its gateway."""

    ip: str
    gateway: str


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """The identity of a machine, sent after every boot, restore and fork; ``entropy`` is base64."""

    sandbox_id: str
    hostname: str
    token: str = field(repr=False)
    unix_time_ns: int
    entropy: str = field(default="", repr=False)
    env: dict[str, str] = field(default_factory=dict, repr=False)
    files: dict[str, FileContent] = field(default_factory=dict, repr=False)
    volumes: list[VolumeMount] = field(default_factory=list)
    init: str | None = None
    dns: list[str] = field(default_factory=list)
    user: str | None = None
    net: NetworkConfig | None = None


def encode(message: object) -> bytes:
    """Give the compact JSON of a message; fields at None or at an empty default are left out."""
    return json.dumps(_plain(message), separators=(",", ":"), ensure_ascii=False).encode()


def encode_list(messages: list[Any]) -> bytes:
    """Give the compact JSON array of messages."""
    return json.dumps([_plain(message) for message in messages], separators=(",", ":"), ensure_ascii=False).encode()


def decode(cls: type[Message], payload: bytes) -> Message:
    """Read a JSON object as ``cls``.

    Raises:
        BadMessage: not JSON, not an object, or a field is missing or of the wrong type.
    """
    return _build(cls, _load(payload), cls.__name__)


def decode_list(cls: type[Message], payload: bytes) -> list[Message]:
    """Read a JSON array of objects as a list of ``cls``.

    Raises:
        BadMessage: as for ``decode``.
    """
    value = _load(payload)
    if not isinstance(value, list):
        raise BadMessage(f"{cls.__name__}: expected an array")
    return [_build(cls, item, f"{cls.__name__}[{index}]") for index, item in enumerate(value)]


def _load(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"malformed JSON: {error}") from error


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        result = {}
        for name, default in _defaults(type(value)):
            item = getattr(value, name)
            if item is None or item == default:
                continue
            result[name] = _plain(item)
        return result
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


@cache
def _defaults(cls: type[Any]) -> tuple[tuple[str, Any], ...]:
    return tuple((f.name, f.default_factory() if f.default_factory is not MISSING else f.default) for f in fields(cls))


@cache
def _schema(cls: type[Any]) -> tuple[tuple[str, Any, bool], ...]:
    hints = get_type_hints(cls)
    return tuple((f.name, hints[f.name], f.default is MISSING and f.default_factory is MISSING) for f in fields(cls))


def _build(cls: type[Message], value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise BadMessage(f"{where}: expected an object")
    arguments = {}
    for name, hint, required in _schema(cls):
        item = value.get(name)
        if item is None:
            if required:
                raise BadMessage(f"{where}: field '{name}' is missing")
            continue
        arguments[name] = _convert(hint, item, f"{where}.{name}")
    return cls(**arguments)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is list:
        if not isinstance(value, list):
            raise BadMessage(f"{where}: expected an array")
        return [_convert(inner[0], item, f"{where}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise BadMessage(f"{where}: expected an object")
        return {key: _convert(inner[1], item, f"{where}.{key}") for key, item in value.items()}
    if inner:  # X | None; None was handled as absent
        return _convert(inner[0], value, where)
    if hasattr(hint, "__dataclass_fields__"):
        return _build(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise BadMessage(f"{where}: expected {hint.__name__}")
    return value
