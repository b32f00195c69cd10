"""What users see of the values inside: sandboxes, checkpoints, ends, images; never the values of an environment."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Literal

import msgspec

from hearth.api.image_schemas import ImageDefaults, ImageView
from hearth.api.schemas import ExitCauseView, Heat, SandboxView, StepTiming
from hearth.api.sleep_schemas import EndingView, SnapshotView
from hearth.api.volume_schemas import MountedVolume, VolumeUser, VolumeView
from hearth.control.golden_images import golden_id
from hearth.control.placing import Mounted
from hearth.control.volumes import VolumeReport
from hearth.image.golden.choosing import object_name
from hearth.image.golden.entries import Entry
from hearth.image.store import Image
from hearth.model import Ending, ExitCause, Sandbox, Snapshot
from hearth.model import Heat as Warmth
from hearth.server.policies import stored_policy_view

HEATS: dict[Warmth, Heat] = {Warmth.HOT: "hot", Warmth.WARM: "warm", Warmth.COLD: "cold"}


def sandbox_view(
    sandbox: Sandbox,
    heat: Warmth,
    *,
    address: IPv4Address | None = None,
    timings: Sequence[StepTiming] = (),
    volumes: Sequence[Mounted] = (),
    with_console: bool = True,
) -> SandboxView:
    """Give what the owner of a sandbox may see of it.

    Args:
        address: on its owner's network, while it is up.
        with_console: show what its machine wrote last; lists are spared it.
    """
    spec = sandbox.spec
    cause = sandbox.exit_cause
    return SandboxView(
        id=sandbox.id,
        name=spec.name,
        state=sandbox.state.value,
        heat=HEATS[heat],
        image=spec.image,
        cpus=spec.cpus,
        memory_mb=spec.memory_mib,
        disk_size_mb=sandbox.disk_mib,
        template_id=spec.template_id,
        labels=dict(spec.labels),
        created_at=sandbox.created_at,
        error=sandbox.error,
        keep_hot=spec.keep_hot,
        ttl_s=spec.ttl_s,
        expires_at=sandbox.expires_at,
        idle_pause_s=spec.idle_pause_s,
        idle_stop_s=spec.idle_stop_s,
        stopped_at=sandbox.stopped_at,
        parent=sandbox.parent,
        exit_cause=None if cause is None else exit_cause_view(cause, with_console=with_console),
        address=None if address is None else str(address),
        net_policy=stored_policy_view(spec.net_policy),
        timings=list(timings),
        volumes=[mounted_view(each) for each in volumes],
    )


def exit_cause_view(cause: ExitCause, *, with_console: bool = True) -> ExitCauseView:
    """Give why a machine ended."""
    return ExitCauseView(
        kind=cause.kind.value,
        detail=cause.detail,
        at=cause.at,
        process=cause.process,
        console=list(cause.console) if with_console else [],
    )


def ending_view(ending: Ending, *, with_console: bool = True) -> EndingView:
    """Give what is remembered of a destroyed sandbox."""
    return EndingView(
        sandbox_id=ending.sandbox_id,
        name=ending.name,
        image=ending.image,
        cpus=ending.cpus,
        memory_mb=ending.memory_mib,
        created_at=ending.created_at,
        ended_at=ending.ended_at,
        exit_cause=exit_cause_view(ending.exit_cause, with_console=with_console),
    )


def snapshot_view(snapshot: Snapshot) -> SnapshotView:
    """Give a checkpoint."""
    return SnapshotView(
        id=snapshot.id,
        name=snapshot.name,
        state=snapshot.state.value,
        sandbox_id=snapshot.sandbox_id,
        sandbox_name=snapshot.sandbox_name,
        parent=snapshot.parent,
        image=snapshot.image,
        cpus=snapshot.cpus,
        memory_mb=snapshot.memory_mib,
        disk_size_mb=snapshot.disk_mib,
        size_bytes=snapshot.size_bytes,
        created_at=snapshot.created_at,
    )


def volume_view(report: VolumeReport) -> VolumeView:
    """Give a volume and who has it."""
    volume = report.volume
    return VolumeView(
        id=volume.id,
        name=volume.name,
        state=volume.state.value,
        size_mb=volume.size_mib,
        fs=volume.fs,
        allocated_bytes=report.allocated_bytes,
        attached=[
            VolumeUser(
                sandbox_id=placed.placement.sandbox_id,
                sandbox_name=placed.sandbox_name,
                mount=placed.placement.mount,
                read_only=placed.placement.read_only,
                attached_at=placed.placement.attached_at,
            )
            for placed in report.placed
        ],
        created_at=volume.created_at,
        provisioned=report.provisioned,
        pool=report.pool,
    )


def golden_view(entry: Entry) -> ImageView:
    """Give a golden image among other images."""
    facts = entry.facts
    return ImageView(
        id=golden_id(entry),
        name=object_name(facts.url) or entry.key[:16],
        kind="golden",
        size_bytes=facts.virtual_size_bytes,
        sha256=entry.key,
        created_at=facts.fetched_at,
        state="ready",
        disk_bytes=entry.allocated_bytes,
        source=facts.url,
        digest=f"sha256:{entry.key}",
        format=facts.format,
        last_used_at=entry.last_used_at,
        pinned=entry.is_pinned,
        in_use=entry.is_in_use,
    )


def mounted_view(mounted: Mounted) -> MountedVolume:
    """Give a volume of a sandbox."""
    placement = mounted.placement
    return MountedVolume(
        id=placement.volume_id,
        name=mounted.volume_name,
        mount=placement.mount,
        read_only=placement.read_only,
        attached_at=placement.attached_at,
    )


def image_view(image: Image) -> ImageView:
    """Give an image."""
    facts = image.facts
    said = facts.get("config")
    state: Literal["ready", "superseded", "deleting"] = "ready"
    if not image.current:
        state = "superseded" if image.owner is None else "deleting"
    sandbox = facts.get("sandbox")
    return ImageView(
        id=image.id,
        name=image.name,
        kind=image.kind.value,
        size_bytes=image.size_bytes,
        sha256=image.sha256,
        created_at=image.created_at,
        state=state,
        disk_bytes=image.disk_bytes,
        owner=image.owner,
        source=facts.get("source") or (None if sandbox is None else f"sandbox {sandbox}"),
        digest=facts.get("digest"),
        platform=facts.get("platform"),
        defaults=None if said is None else msgspec.convert(said, ImageDefaults),
    )
