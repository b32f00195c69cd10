"""The values every layer speaks of: sandboxes, images, machines. Frozen, no behaviour beyond checking themselves."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from hearth.errors import Code, InvalidInput
from hearth.tenancy import KeyKind, KeyScope, SecretUse

NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
ENV_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_CONSOLE_LINES = 50
"""Most lines of a machine's console that are kept with the cause of its end."""


class SandboxState(StrEnum):
    """The life of a sandbox as users see it. A STOPPED one is cold: on disk, with its memory, and no process."""

    CREATING = "creating"
    RUNNING = "running"
    STOPPED = "stopped"
    DESTROYING = "destroying"
    FAILED = "failed"
    LOST = "lost"


class Heat(StrEnum):
    """How much of a sandbox is there: its CPUs run, they stand still in memory, or it lies on disk."""

    HOT = "hot"
    WARM = "warm"
    COLD = "cold"


class ExitKind(StrEnum):
    """Why a machine ended."""

    GUEST_OOM = "guest_oom"
    """The guest ran out of memory."""
    KERNEL_PANIC = "kernel_panic"
    DISK_FULL = "disk_full"
    VMM_CRASH = "vmm_crash"
    HOST_PRESSURE = "host_pressure"
    """The host, or the machine's share of it, ran out of memory."""
    KILLED = "killed"
    """Somebody on the host ended the VMM."""
    TTL = "ttl"
    USER = "user"
    HOST_RESTART = "host_restart"
    POWER_OFF = "power_off"
    """The guest shut itself down."""
    UNKNOWN = "unknown"


class SnapshotState(StrEnum):
    """The life of a checkpoint. One that is DELETING may have to wait for others that lie over its disk."""

    CREATING = "creating"
    READY = "ready"
    DELETING = "deleting"


class VolumeState(StrEnum):
    """The life of a volume. One made for a new sandbox is CREATING until that runs."""

    CREATING = "creating"
    READY = "ready"
    DELETING = "deleting"


class JobState(StrEnum):
    """The life of a job. Only the last three are final: a job whose undo could not be finished stays in UNDOING."""

    PENDING = "pending"
    RUNNING = "running"
    UNDOING = "undoing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class StepPhase(StrEnum):
    """Which half of a step ran."""

    DO = "do"
    UNDO = "undo"


class Accelerator(StrEnum):
    """What executes the guest's instructions."""

    KVM = "kvm"
    TCG = "tcg"


class ImageKind(StrEnum):
    """The three kinds of artifact a machine boots from."""

    KERNEL = "kernel"
    AGENT = "agent"
    ROOTFS = "rootfs"


@dataclass(frozen=True, kw_only=True)
class SandboxSpec:
    """What a user asks for. ``cpus`` are virtual CPUs, ``memory_mib`` MiB of guest RAM.

    A sandbox that is ``keep_hot`` never sleeps. ``ttl_s`` seconds after its creation, or after that was changed, it is
    destroyed. It sleeps after ``idle_pause_s`` and ``idle_stop_s`` seconds without use; None takes the daemon's.
    Without ``disk_mib`` its disk is as large as its image. ``template_id`` says of which template it was made.
    ``net_policy`` is what ``hearth.network.policy.parse_policy`` takes; stored without one, it reaches nothing of the
    world.
    """

    name: str
    image: str = "debian"
    cpus: int = 1
    memory_mib: int = 256
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)
    keep_hot: bool = False
    ttl_s: int | None = None
    idle_pause_s: float | None = None
    idle_stop_s: float | None = None
    net_policy: Mapping[str, object] | None = None
    secrets: tuple[SecretUse, ...] = ()
    disk_mib: int | None = None
    template_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class ExitCause:
    """Why a machine ended, ``at`` which time, in words for a person.

    ``process`` is the guest's process that had to go, by name, where one is known; ``console`` are the last lines of
    its serial console, at most MAX_CONSOLE_LINES, printable ASCII.
    """

    kind: ExitKind
    detail: str
    at: datetime
    process: str | None = None
    console: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Lifetime:
    """How long a sandbox may live: ``ttl_s`` seconds, that is until ``expires_at``; both None without an end."""

    ttl_s: int | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class SandboxChanges:
    """What may be changed of a sandbox while it lives; None leaves a field as it is. Labels go before they come.

    The store takes ``net_policy`` as a whole.
    """

    name: str | None = None
    keep_hot: bool | None = None
    labels_add: Mapping[str, str] = field(default_factory=dict)
    labels_remove: Collection[str] = ()
    lifetime: Lifetime | None = None
    net_policy: Mapping[str, object] | None = None

    def apply(self, spec: SandboxSpec) -> SandboxSpec:
        """Give ``spec`` with these changes."""
        labels = {key: value for key, value in spec.labels.items() if key not in self.labels_remove}
        return replace(
            spec,
            name=spec.name if self.name is None else self.name,
            keep_hot=spec.keep_hot if self.keep_hot is None else self.keep_hot,
            labels=labels | dict(self.labels_add),
            ttl_s=spec.ttl_s if self.lifetime is None else self.lifetime.ttl_s,
            net_policy=spec.net_policy if self.net_policy is None else self.net_policy,
        )


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """A sandbox as stored: its spec, who owns it and where it stands.

    ``image_id`` is the image its name stood for at its creation, whatever that name stands for later. ``origin`` is the
    snapshot whose frozen disk its own lies over; ``parent`` the sandbox or checkpoint it was forked
    from, which may be gone. ``exit_cause`` tells why its machine ended, until another runs. Its disk has ``disk_mib``
    MiB.
    """

    id: str
    owner: str
    spec: SandboxSpec
    state: SandboxState
    created_at: datetime
    error: str | None = None
    image_id: str | None = None
    origin: str | None = None
    parent: str | None = None
    expires_at: datetime | None = None
    exit_cause: ExitCause | None = None
    stopped_at: datetime | None = None
    disk_mib: int | None = None


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What is remembered of a destroyed sandbox: what it was and why it ended."""

    sandbox_id: str
    owner: str
    name: str
    image: str
    cpus: int
    memory_mib: int
    created_at: datetime
    ended_at: datetime
    exit_cause: ExitCause


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A named checkpoint: the memory and disk of a sandbox at one moment, for others to start from.

    ``sandbox_id`` and ``sandbox_name`` tell whose it was, who may be gone; ``parent`` is the checkpoint that sandbox
    had started from. ``size_bytes`` is what it takes on disk.
    """

    id: str
    owner: str
    name: str
    sandbox_id: str
    sandbox_name: str
    parent: str | None = None
    created_at: datetime
    image: str
    cpus: int
    memory_mib: int
    disk_mib: int | None = None
    size_bytes: int = 0
    state: SnapshotState = SnapshotState.CREATING


@dataclass(frozen=True, kw_only=True)
class NamedVolume:
    """A volume as its owner knows it; its storage knows it by ``id``. ``fs`` is the file system on it."""

    id: str
    owner: str
    name: str
    size_mib: int
    fs: str
    created_at: datetime
    state: VolumeState = VolumeState.CREATING


@dataclass(frozen=True, kw_only=True)
class VolumePlacement:
    """Where a volume is in a sandbox: mounted at the absolute path ``mount``, on the disk of place ``slot``."""

    sandbox_id: str
    volume_id: str
    mount: str
    read_only: bool
    slot: int
    attached_at: datetime


@dataclass(frozen=True, kw_only=True)
class Publication:
    """A TCP port of a sandbox that everybody reaches under a name of its own, without a token."""

    alias: str
    sandbox_id: str
    port: int
    created_at: datetime


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody who may call the API. ``admin`` users see everything."""

    id: str
    name: str
    admin: bool = False
    created_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """What is known of a key besides its hash; ``prefix`` is the part that may be shown.

    One with a ``sandbox_id`` opens that sandbox alone.
    """

    id: str
    user_id: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    name: str = ""
    kind: KeyKind = KeyKind.BEARER
    scope: KeyScope = KeyScope.FULL
    sandbox_id: str | None = None
    last_used_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, kw_only=True)
class JobError:
    """Why a job did not complete, in the words of the error that ended it; ``code`` is one of ``errors.Code``.

    ``field`` names the input at fault, where there is one.
    """

    code: Code
    brief: str
    details: str = ""
    resolution: str = ""
    field: str | None = None


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One half of a step that has ended; ``error`` is None when it went well. ``duration_s`` in seconds."""

    name: str
    phase: StepPhase
    started_at: datetime
    duration_s: float
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Job:
    """Durable work: a plan (``kind``) for one ``subject`` (such as a sandbox's id), and how far it has come.

    ``step`` is the last step begun; ``input`` is all that undoing needs; ``attempt`` counts claims; ``result`` is what
    is worth telling of what came of it. The lease says which daemon works on it and until when that daemon counts as
    alive. ``owner`` is the user it is done for; None for what the daemon does unasked, and for jobs older than this
    field. A job belongs to the host it was stored on, unless ``any_host``: then whichever daemon of this database is
    first does it, and another when that one dies. ``holds`` names what no other job may have until this one has ended.
    """

    id: str
    kind: str
    subject: str
    owner: str | None = None
    any_host: bool = False
    holds: str | None = None
    input: Mapping[str, object] = field(default_factory=dict, repr=False)
    result: Mapping[str, object] | None = None
    state: JobState = JobState.PENDING
    step: str | None = None
    attempt: int = 0
    error: JobError | None = None
    steps: tuple[StepRecord, ...] = ()
    lease_owner: str | None = None
    lease_until: datetime | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    cancel_asked_at: datetime | None = None
    """Since when its end is wished for; whoever holds the lease looks for it."""


def check_name(value: str, *, what: str = "name") -> str:
    """Return ``value`` when it is a DNS label (1-63 of a-z, 0-9 and inner hyphens).

    Raises:
        InvalidInput: it is not; the error names the field ``what``.
    """
    if NAME_PATTERN.fullmatch(value) is None:
        raise InvalidInput(
            f"invalid {what}",
            details=f"{what} {value[:80]!r} is not a DNS label",
            resolution="use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
            field=what,
        )
    return value


def check_range(value: int, low: int, high: int, *, what: str, unit: str = "") -> int:
    """Return ``value`` when low ≤ value ≤ high.

    Raises:
        InvalidInput: it is not; the error names the field ``what``.
    """
    if not low <= value <= high:
        suffix = f" {unit}" if unit else ""
        raise InvalidInput(
            f"invalid {what}",
            details=f"{what} is {value}{suffix}",
            resolution=f"use {low} to {high}{suffix}",
            field=what,
        )
    return value
