"""The operations of sleep, copies, checkpoints, ends and machines kept ready, as values; the rest is in ``calls``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from hearth.api.image_schemas import ImageView
from hearth.api.life_operations import (
    CHECKPOINT_SANDBOX,
    FORK_SANDBOX,
    GET_EGRESS,
    PAUSE_SANDBOX,
    RESUME_SANDBOX,
    SAVE_IMAGE,
    START_SANDBOX,
    STOP_SANDBOX,
    UPDATE_SANDBOX,
)
from hearth.api.limits import MAX_LIST_LIMIT
from hearth.api.net_schemas import EgressView
from hearth.api.schemas import ListPage, Nothing, SandboxList, SandboxView
from hearth.api.sleep_schemas import (
    ChangeSandbox,
    CopySandbox,
    EndingList,
    EndingView,
    MachineTemplateList,
    MachineTemplateView,
    NamedCopy,
    SnapshotList,
    SnapshotView,
    StartSandbox,
    WarmTemplate,
)
from hearth.api.snapshot_operations import (
    DELETE_MACHINE_TEMPLATE,
    DELETE_SNAPSHOT,
    GET_ENDING,
    GET_SNAPSHOT,
    LIST_ENDINGS,
    LIST_MACHINE_TEMPLATES,
    LIST_SNAPSHOTS,
    RESUME_SNAPSHOT,
    WARM_MACHINE_TEMPLATE,
)
from hearth.sdk.call import LONG_S, Call, call_of, checked

SNAPSHOT = "snapshot"
TEMPLATE = "machine template"


class ChangeOptions(TypedDict, total=False):
    """What ``update`` takes; what is left out stays. ``ttl_s``: seconds from now, None takes the time to live away."""

    name: str | None
    keep_hot: bool | None
    labels_add: Mapping[str, str]
    labels_remove: Sequence[str]
    ttl_s: int | None
    net_policy: Mapping[str, object] | None


class ShapeOptions(TypedDict, total=False):
    """The shape of a machine: an image's name, virtual CPUs, MiB of memory."""

    image: str
    cpus: int
    memory_mb: int


def update(ref: str, options: ChangeOptions) -> Call[SandboxView]:
    return call_of(UPDATE_SANDBOX, checked(ChangeSandbox, dict(options)), ref=ref)


def egress(ref: str) -> Call[EgressView]:
    return call_of(GET_EGRESS, Nothing(), ref=ref)


def stop(ref: str) -> Call[SandboxView]:
    return call_of(STOP_SANDBOX, Nothing(), ref=ref, timeout_s=LONG_S)


def start(ref: str, *, force: bool) -> Call[SandboxView]:
    return call_of(START_SANDBOX, StartSandbox(force=force), ref=ref, timeout_s=LONG_S)


def pause(ref: str) -> Call[SandboxView]:
    return call_of(PAUSE_SANDBOX, Nothing(), ref=ref, timeout_s=LONG_S)


def resume(ref: str) -> Call[SandboxView]:
    return call_of(RESUME_SANDBOX, Nothing(), ref=ref, timeout_s=LONG_S)


def fork(ref: str, *, name: str | None, count: int) -> Call[SandboxList]:
    copy = checked(CopySandbox, {"name": name, "count": count})
    return call_of(FORK_SANDBOX, copy, ref=ref, timeout_s=LONG_S)


def checkpoint(ref: str, name: str) -> Call[SnapshotView]:
    return call_of(CHECKPOINT_SANDBOX, checked(NamedCopy, {"name": name}), ref=ref, timeout_s=LONG_S)


def save_image(ref: str, name: str) -> Call[ImageView]:
    return call_of(SAVE_IMAGE, checked(NamedCopy, {"name": name}), ref=ref, timeout_s=LONG_S)


def snapshots_page(cursor: str | None) -> Call[SnapshotList]:
    return call_of(LIST_SNAPSHOTS, ListPage(limit=MAX_LIST_LIMIT, cursor=cursor))


def snapshot(ref: str) -> Call[SnapshotView]:
    return call_of(GET_SNAPSHOT, Nothing(), ref=ref, what=SNAPSHOT)


def delete_snapshot(ref: str) -> Call[Nothing]:
    return call_of(DELETE_SNAPSHOT, Nothing(), ref=ref, what=SNAPSHOT, timeout_s=LONG_S)


def resume_snapshot(ref: str, *, name: str | None, count: int) -> Call[SandboxList]:
    copy = checked(CopySandbox, {"name": name, "count": count})
    return call_of(RESUME_SNAPSHOT, copy, ref=ref, what=SNAPSHOT, timeout_s=LONG_S)


def endings_page(cursor: str | None) -> Call[EndingList]:
    return call_of(LIST_ENDINGS, ListPage(limit=MAX_LIST_LIMIT, cursor=cursor))


def ending(ref: str) -> Call[EndingView]:
    return call_of(GET_ENDING, Nothing(), ref=ref)


def machine_templates() -> Call[MachineTemplateList]:
    return call_of(LIST_MACHINE_TEMPLATES, Nothing())


def warm_machine_template(options: ShapeOptions) -> Call[MachineTemplateView]:
    return call_of(WARM_MACHINE_TEMPLATE, checked(WarmTemplate, dict(options)), timeout_s=LONG_S)


def delete_machine_template(ref: str) -> Call[Nothing]:
    return call_of(DELETE_MACHINE_TEMPLATE, Nothing(), ref=ref, what=TEMPLATE, timeout_s=LONG_S)
