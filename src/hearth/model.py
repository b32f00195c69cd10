"""The values every layer speaks of: sandboxes, images, machines. Frozen, no behaviour beyond checking themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from hearth.errors import Code, InvalidInput

NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
ENV_NAME_PATTERN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class SandboxState(StrEnum):
    """The life of a sandbox as users see it."""

    CREATING = "creating"
    RUNNING = "running"
    DESTROYING = "destroying"
    FAILED = "failed"
    LOST = "lost"


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
    """What a user asks for. ``cpus`` are virtual CPUs, ``memory_mib`` MiB of guest RAM."""

    name: str
    image: str = "debian"
    cpus: int = 1
    memory_mib: int = 256
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sandbox:
    """A sandbox as stored: its spec, who owns it and where it stands."""

    id: str
    owner: str
    spec: SandboxSpec
    state: SandboxState
    created_at: datetime
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody who may call the API. ``admin`` users see everything."""

    id: str
    name: str
    admin: bool = False


@dataclass(frozen=True, kw_only=True)
class ApiKey:
    """What is known of a key besides its hash; ``prefix`` is the part that may be shown."""

    id: str
    user_id: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    def is_valid(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, kw_only=True)
class JobError:
    """Why a job did not complete, in the words of the error that ended it; ``code`` is one of ``errors.Code``."""

    code: Code
    brief: str
    details: str = ""
    resolution: str = ""


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

    ``step`` is the last step begun; ``input`` is all that undoing needs; ``attempt`` counts claims. The lease says
    which daemon works on it and until when that daemon counts as alive.
    """

    id: str
    kind: str
    subject: str
    input: Mapping[str, object] = field(default_factory=dict, repr=False)
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
