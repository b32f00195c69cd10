"""The JSON bodies of the wire: one record each. ``hearth.wire.codec`` turns them into bytes and back; which frame
type carries which class stands in the protocol and in docs/wire.md, the texts of ERROR in ``hearth.wire.faults``.
"""

from __future__ import annotations

from hearth.wire.codec import BadMessage as BadMessage
from hearth.wire.codec import decode as decode
from hearth.wire.codec import decode_list as decode_list
from hearth.wire.codec import encode as encode
from hearth.wire.codec import encode_list as encode_list
from hearth.wire.record import Bounds, Record, field

_U16 = Bounds(low=0, high=65_535)
_PORT = Bounds(low=1, high=65_535)
_COUNT = Bounds(low=0, high=2**63 - 1)


class ExecRequest(Record):
    """Start a command, or attach to a session when ``session_id`` is set. Times in seconds.

    ``keep`` is the host's name for a command that outlives connections; ``after`` where its output, or that
    of the session attached to, is to go on.
    """

    argv: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    tty: bool = False
    rows: int = field(default=24, bounds=_U16)
    cols: int = field(default=80, bounds=_U16)
    session_id: str | None = None
    max_idle_sec: int = 0
    if_detached: bool = False
    detach: bool = False
    output_file: str | None = None
    session: bool = False
    user: str | None = None
    timeout_sec: float | None = None
    keep: str | None = None
    after: int | None = field(default=None, bounds=_COUNT)


class KeptInfo(Record):
    """A kept command as a client finds it: where the output it is about to get begins, and what input came."""

    position: int = field(bounds=_COUNT)
    running: bool
    input_bytes: int = field(bounds=_COUNT)
    input_ended: bool


class SessionInfo(Record):
    """One session; ``argv`` is its words joined by a space, ``created_at`` unix seconds.

    ``restarts`` and ``healthy`` are told of the init script alone, the latter once a health check has decided;
    ``position``, where the output it is about to get begins, to a client alone.
    """

    session_id: str
    argv: str
    tty: bool
    running: bool
    exit_code: int | None = None
    attached: bool
    created_at: int
    restarts: int | None = None
    healthy: bool | None = None
    position: int | None = field(default=None, bounds=_COUNT)


class MemoryInfo(Record):
    """The guest's memory in MiB; ``available_mib`` is what programs could still get."""

    total_mib: int = field(bounds=_COUNT)
    available_mib: int = field(bounds=_COUNT)


class ActivityInfo(Record):
    """When the guest was last busy (unix seconds) and how many sessions it holds.

    ``cpu_ms`` (processor time used since boot, the agent's own left out) and ``memory`` are told by machines only.
    """

    last_activity_unix: int
    active_sessions: int
    attached_sessions: int
    cpu_ms: int | None = field(default=None, bounds=_COUNT)
    memory: MemoryInfo | None = None
    frozen: bool = False


class FileInfo(Record):
    """One directory entry: base name, size in bytes, mode as 4 octal digits, mtime in unix seconds."""

    name: str
    size: int
    mode: str
    is_dir: bool
    mtime: int


class FileReadRequest(Record):
    """Read a file; ``offset`` is the 1-based first line, ``limit`` counts lines."""

    path: str
    offset: int | None = None
    limit: int | None = None
    max_bytes: int | None = None


class FileReadResponse(Record):
    """``size`` is the whole file's, whatever part follows."""

    size: int
    mode: str


class FileWriteRequest(Record):
    """Write a file atomically; exactly ``size`` bytes follow in STDIN frames. ``large`` lets that be any size.

    ``user`` is whose it becomes.
    """

    path: str
    size: int
    mode: str | None = None
    large: bool = False
    user: str | None = None


class FileRangeRequest(Record):
    """FILE_READ_RANGE: ``length`` bytes from byte ``start`` (0-based); None is to the end. Answered like FILE_READ."""

    path: str
    start: int = 0
    length: int | None = None


class PathRequest(Record):
    """FILE_STAT, FILE_LS and TAR_READ (the path is the top of the archive)."""

    path: str


class MakeDirectoryRequest(Record):
    """FILE_MKDIR: parents are made, an existing directory is fine; ``mode`` is octal, for the last one only."""

    path: str
    mode: str | None = None


class RemoveRequest(Record):
    """FILE_REMOVE: a file, a symlink itself, an empty directory, or a whole tree when ``recursive``."""

    path: str
    recursive: bool = False


class MoveRequest(Record):
    """FILE_MOVE: rename; an existing ``to`` is refused unless ``overwrite``."""

    path: str
    to: str
    overwrite: bool = False


class ChangeModeRequest(Record):
    """FILE_CHMOD: ``mode`` is octal; a symlink at the top is followed."""

    path: str
    mode: str
    recursive: bool = False


class TarWriteRequest(Record):
    """TAR_WRITE: unpack the archive in the STDIN frames up to STDIN_EOF below the directory ``path``.

    ``user`` is whose its members become.
    """

    path: str
    user: str | None = None


class WatchRequest(Record):
    """WATCH: tell the changes of a file or directory until the client goes away."""

    path: str
    recursive: bool = False


class WatchEvent(Record):
    """One change. ``kind``: created, modified, removed, moved (``to`` is the new path) or overflow (events were lost).

    Paths are absolute; ``path`` of an overflow is the watched one.
    """

    kind: str
    path: str
    to: str | None = None
    is_dir: bool = False


class PortInfo(Record):
    """One listening TCP socket of the guest; ``process`` and ``pid`` where they can be told."""

    port: int = field(bounds=_PORT)
    address: str
    process: str | None = None
    pid: int | None = None


class Status(Record):
    """``ok``, or ``error`` with a message."""

    status: str
    message: str | None = None


class FreezeRequest(Record):
    """FREEZE: ``timeout_sec`` bounds the attempt; after ``thaw_after_sec`` the guest thaws by itself."""

    timeout_sec: float = 10.0
    thaw_after_sec: float = 30.0


class FrozenMount(Record):
    """One frozen file system: a mount point of it and its bytes, as statvfs(3) counts them."""

    mount: str
    used_bytes: int = field(bounds=_COUNT)
    total_bytes: int = field(bounds=_COUNT)
    available_bytes: int = field(bounds=_COUNT)


class OomKill(Record):
    """A process the kernel ended for want of memory; ``seconds`` since boot, as its log counts them."""

    process: str
    pid: int
    seconds: float


class LastWords(Record):
    """What tells why things ended: the last kills for memory, oldest first, and how long the machine is up."""

    uptime_sec: float
    oom_kills: list[OomKill] = field(default_factory=list)


class ForwardRequest(Record):
    port: int = field(bounds=_PORT)


class ExecKillRequest(Record):
    session_id: str


class ProcessStarted(Record):
    """The one STDOUT frame of a detached exec."""

    pid: int
    output_file: str


class FileContent(Record):
    """A small file to put in place at configure time; ``content`` is base64.

    It becomes ``user``'s (a name or uid), else whose its directory is.
    """

    content: str = field(repr=False)
    mode: str = "0644"
    user: str | None = None


class VolumeMount(Record):
    """A block device of the machine and where it is mounted."""

    device: str
    mount: str
    fs: str = "ext4"
    read_only: bool = False


class VolumesRequest(Record):
    """VOLUMES: have these mounted, and no other volume."""

    volumes: list[VolumeMount] = field(default_factory=list)


class NetworkConfig(Record):
    """The guest's address as CIDR and its gateway."""

    ip: str
    gateway: str


class InitHealth(Record):
    """A command that exits 0 while the init script is well; times in seconds, ``retries`` failures in a row count."""

    argv: list[str]
    interval_sec: float = 10.0
    timeout_sec: float = 5.0
    retries: int = 3


class MachineConfig(Record):
    """The identity of a machine, sent after every boot, restore and fork; ``entropy`` is base64.

    ``generation`` counts lives: another one than the agent knows says that this memory was restored or copied.
    ``machine_id`` is 32 hex digits; without it one is made from ``sandbox_id``. ``root_bytes`` is the size of the root
    disk, which its file system is to fill; None leaves that as it is.
    """

    sandbox_id: str
    hostname: str
    token: str = field(repr=False)
    unix_time_ns: int
    entropy: str = field(default="", repr=False)
    env: dict[str, str] = field(default_factory=dict, repr=False)
    files: dict[str, FileContent] = field(default_factory=dict, repr=False)
    volumes: list[VolumeMount] = field(default_factory=list)
    init: str | None = None
    init_restart: str = "never"
    init_health: InitHealth | None = None
    dns: list[str] = field(default_factory=list)
    user: str | None = None
    net: NetworkConfig | None = None
    machine_id: str | None = None
    generation: int | None = field(default=None, bounds=_COUNT)
    root_bytes: int | None = field(default=None, bounds=_COUNT)
