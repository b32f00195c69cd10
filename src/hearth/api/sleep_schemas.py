"""Bodies of what sandboxes do besides running commands: sleep, copies, checkpoints, ends; and machines kept ready.

The conventions are those of ``schemas``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from hearth.api.limits import MAX_LABELS
from hearth.api.net_schemas import NetPolicy
from hearth.api.schemas import Cpus, ExitCauseView, LabelKey, Labels, MemoryMb, Name, TimeToLive
from hearth.bounds import MAX_COPIES


class ChangeSandbox(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may be changed of a sandbox; what is left out stays. Labels go before they come.

    ``ttl_s`` counts from now; null takes the time to live away. Fields that ``net_policy`` leaves out stay, too; it
    holds at once, for open connections as well.
    """

    name: Name | None = None
    keep_hot: bool | None = None
    labels_add: Labels = {}
    labels_remove: Annotated[list[LabelKey], Meta(max_length=MAX_LABELS)] = []
    ttl_s: TimeToLive | UnsetType | None = UNSET
    net_policy: NetPolicy | None = None


class StartSandbox(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """``force`` boots from disk what cannot be woken with its memory; what was in memory is lost then."""

    force: bool = False


class CopySandbox(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How many copies, and the name of the one; of several it is what their names begin with."""

    name: Name | None = None
    count: Annotated[int, Meta(ge=1, le=MAX_COPIES)] = 1


class NamedCopy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The name of what is made of a sandbox."""

    name: Name


class SnapshotView(Struct, frozen=True, kw_only=True):
    """A checkpoint: memory and disk of a sandbox at one moment.

    ``sandbox_id`` and ``sandbox_name`` tell whose they were, which may be gone; ``parent`` is the id of the checkpoint
    which that sandbox had started from. ``disk_size_mb`` is told where it is not that of the image,
    ``size_bytes`` is what it takes on disk.
    """

    id: str
    name: str
    state: str
    sandbox_id: str
    sandbox_name: str
    parent: str | None = None
    image: str
    cpus: int
    memory_mb: int
    disk_size_mb: int | None = None
    size_bytes: int
    created_at: datetime


class SnapshotList(Struct, frozen=True, kw_only=True):
    """One page; ``next_cursor`` is absent on the last one."""

    items: list[SnapshotView]
    next_cursor: str | None = None


class EndingView(Struct, frozen=True, kw_only=True):
    """What is remembered of a destroyed sandbox: what it was and why it ended."""

    sandbox_id: str
    name: str
    image: str
    cpus: int
    memory_mb: int
    created_at: datetime
    ended_at: datetime
    exit_cause: ExitCauseView


class EndingList(Struct, frozen=True, kw_only=True):
    """One page; ``next_cursor`` is absent on the last one. Consoles are left out."""

    items: list[EndingView]
    next_cursor: str | None = None


class WarmTemplate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The shape of machines to keep one ready of."""

    image: Name = "debian"
    cpus: Cpus = 1
    memory_mb: MemoryMb = 256


class MachineTemplateView(Struct, frozen=True, kw_only=True):
    """A machine kept ready to be cloned.

    ``image`` is a name, or an id where the name stands for another image by now. ``size_bytes`` is what it takes on
    disk, ``uses`` the number of sandboxes whose disks lie over it. One that is stale is used by no creation any more.
    """

    id: str
    image: str
    cpus: int
    memory_mb: int
    size_bytes: int
    uses: int
    is_stale: bool = False
    created_at: datetime
    used_at: datetime


class MachineTemplateList(Struct, frozen=True, kw_only=True):
    items: list[MachineTemplateView]
