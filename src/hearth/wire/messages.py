"""The JSON bodies of the wire: one frozen class each. ``hearth.wire.codec`` turns them into bytes and back; which frame
type carries which class stands in the protocol and in docs/wire.md, the texts of ERROR in ``hearth.wire.faults``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from hearth.wire.codec import BadMessage as BadMessage
from hearth.wire.codec import Bounds
from hearth.wire.codec import decode as decode
from hearth.wire.codec import decode_list as decode_list
from hearth.wire.codec import encode as encode
from hearth.wire.codec import encode_list as encode_list

_U16 = Annotated[int, Bounds(low=0, high=65_535)]
_Port = Annotated[int, Bounds(low=1, high=65_535)]


@dataclass(frozen=True, kw_only=True)
class ExecRequest:
    """Start a command, or attach to a session when ``session_id`` is set. Times in seconds."""

    argv: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    tty: bool = False
    rows: _U16 = 24
    cols: _U16 = 80
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
    """FILE_CHMOD: ``mode`` is octal; a symlink at the top is followed."""

    path: str
    mode: str
    recursive: bool = False


@dataclass(frozen=True, kw_only=True)
class TarWriteRequest:
    """TAR_WRITE: unpack the archive in the STDIN frames up to STDIN_EOF below the directory ``path``."""

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

    port: _Port
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
    port: _Port


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
