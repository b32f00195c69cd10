"""Places for volumes in a machine: virtio disks that are there from the start, empty until a volume is put behind them.

A machine's devices never change, so a clone has exactly those of its template. What changes is the node below a slot's
own: ``blockdev-reopen`` swaps it and ``block_resize`` makes QEMU tell the guest of the new size. A slot for read-only
volumes is a read-only disk to the guest, and QEMU opens what is in it read-only. Tried and measured in
docs/decisions/volumes-hotplug.md, with what else was tried.

The commands come as phases: each phase is sent only when all of the one before it were done. A ``block_resize`` after a
``blockdev-reopen`` that QEMU refused would cut the volume.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from hearth.engine.base import PLAIN, VolumeLayout
from hearth.engine.qemu.qmp import Arguments, Qmp, QmpRefused
from hearth.errors import Conflict, InvalidInput

WRITABLE_SLOTS = 4
READ_ONLY_SLOTS = 4
"""Each costs a machine 0.2 MiB and no time to boot; microvm has room for 24 devices in all."""
FIRST_SET = 100
"""Of the descriptor sets, two for each slot: the volume's, and the scratch file's. Disks have lower ones."""
FIRST_BASE_SET = 200
"""Of those for the files that volumes lie over, one for each slot."""
SECTOR_BYTES = 512
FLUSH_TIMEOUT_S = 60.0
"""To stop a machine, or to take a volume away, QEMU first writes out what the guest wrote."""

Command = tuple[str, Arguments | None]
Phase = Sequence[Command]


@dataclass(frozen=True, kw_only=True)
class Slot:
    """The ``number``-th place for a volume, from 0."""

    number: int
    read_only: bool

    @property
    def node(self) -> str:
        """The block node the device has for good."""
        return f"slot{self.number}"

    @property
    def empty(self) -> str:
        """What is below ``node`` while there is no volume."""
        return f"{self.node}-empty"

    @property
    def volume(self) -> str:
        """What is below ``node`` while there is one."""
        return f"{self.node}-volume"

    @property
    def scratch(self) -> str:
        """A file of one sector that takes a ``block_resize`` where the volume must not, for a moment."""
        return f"{self.node}-scratch"

    @property
    def volume_set(self) -> int:
        """The descriptor set in which QEMU is given the volume."""
        return FIRST_SET + 2 * self.number

    @property
    def scratch_set(self) -> int:
        return self.volume_set + 1

    @property
    def base_set(self) -> int:
        return FIRST_BASE_SET + self.number

    @property
    def guest_device(self) -> str:
        """The guest's name of it: the root disk is vda, slots follow in order."""
        return f"/dev/vd{chr(ord('b') + self.number)}"


def all_slots(writable: int = WRITABLE_SLOTS, read_only: int = READ_ONLY_SLOTS) -> tuple[Slot, ...]:
    """Give a machine's slots, writable ones first."""
    return tuple(Slot(number=number, read_only=number >= writable) for number in range(writable + read_only))


def slot_words(slots: Sequence[Slot], bus: str) -> list[str]:
    """Give the words of the command line that make empty slots, to stand right after the root disk's.

    Args:
        bus: ``device`` (virtio-mmio, microvm) or ``pci``.
    """
    words = []
    for slot in slots:
        empty = {
            "driver": "null-co",
            "node-name": slot.empty,
            "size": 0,
            "read-zeroes": True,
            "read-only": slot.read_only,
        }
        words += ["-blockdev", _json(empty), "-blockdev", _json(_over(slot, slot.empty))]
        words += ["-device", f"virtio-blk-{bus},drive={slot.node},serial={slot.node}"]
    return words


def attach_phases(slot: Slot, size_bytes: int, *, layout: VolumeLayout = PLAIN, announce: bool = True) -> list[Phase]:
    """Give what puts a volume into an empty slot of a paused machine (or a running one, for a writable slot).

    The volume has been handed over in ``slot.volume_set``, what it lies over in ``slot.base_set``, for an announced one
    that is read-only or not plain a scratch file in ``slot.scratch_set``, too.

    Args:
        size_bytes: the volume's own size, exactly.
        announce: tell the guest; not for a machine whose memory knows the volume already (restored with it attached).
    """
    add = ("blockdev-add", _volume(slot, layout))
    into = _reopen(_over(slot, slot.volume))
    if not announce:
        return [[add], [into]]
    if not needs_scratch(slot, layout):
        return [[add], [into], [_resize(slot, size_bytes)]]
    # QEMU resizes no read-only node and no part of one, and only a resize is announced: the guest is told while a
    # scratch file is there.
    return [
        [add, *_scratch_in(slot)],
        [_reopen(_over(slot, slot.scratch, read_only=False))],
        [_resize(slot, size_bytes)],
        [into],
        [_delete(slot.scratch)],
    ]


def needs_scratch(slot: Slot, layout: VolumeLayout) -> bool:
    """Tell whether the guest is to be told of the size while something else is in the slot."""
    return slot.read_only or not layout.is_plain


def detach_phases(slot: Slot) -> list[Phase]:
    """Give what takes the volume out of a slot of a paused machine and tells the guest; what was written is flushed.

    A scratch file has been handed over in ``slot.scratch_set``.
    """
    return [
        _scratch_in(slot),
        [_reopen(_over(slot, slot.scratch, read_only=False))],
        [_resize(slot, 0)],
        [_reopen(_over(slot, slot.empty))],
        [_delete(slot.scratch), _delete(slot.volume)],
    ]


def clearing_commands(slot: Slot) -> list[Command]:
    """Give what makes a slot empty after an attach that failed half-way, to be sent one by one; refusals are fine."""
    return [_reopen(_over(slot, slot.empty)), _delete(slot.scratch), _delete(slot.volume)]


def closing_commands(slot: Slot, *, keep_volume: bool = False) -> list[Command]:
    """Give what has a *running* QEMU close what it was handed over; a paused one only makes a note of it."""
    return [_remove(slot.scratch_set), *([] if keep_volume else [_remove(slot.volume_set), _remove(slot.base_set)])]


def occupied_slots(slots: Sequence[Slot], named_nodes: Sequence[Mapping[str, Any]]) -> set[int]:
    """Tell which slots hold a volume, by QEMU's answer to ``query-named-block-nodes``: for a daemon that adopts."""
    names = {node.get("node-name") for node in named_nodes}
    return {slot.number for slot in slots if slot.volume in names}


def choose_slot(slots: Sequence[Slot], occupied: Collection[int], *, read_only: bool) -> Slot:
    """Give the first free slot of a kind.

    Raises:
        Conflict: all of them are taken.
    """
    of_kind = [slot for slot in slots if slot.read_only is read_only]
    for slot in of_kind:
        if slot.number not in occupied:
            return slot
    kind = "read-only" if read_only else "writable"
    raise Conflict(
        f"no room for another {kind} volume",
        details=f"the machine has {len(of_kind)} places for {kind} volumes, all taken",
        resolution="detach one first",
        field="volumes",
    )


async def attach(
    monitor: Qmp,
    slot: Slot,
    descriptor: int,
    *,
    layout: VolumeLayout = PLAIN,
    running: bool,
    announce: bool = True,
) -> int:
    """Put an open volume into an empty slot; on failure the slot is empty again and QEMU has closed its copy.

    Args:
        descriptor: open for reading alone in a read-only slot; stays ours, as what it lies over does.
        running: the CPUs run; they stand still for some 3 ms then. The caller keeps others from pausing and resuming.
        announce: see ``attach_phases``.

    Returns:
        The volume's size in bytes, which is the guest's disk's from now on.

    Raises:
        InvalidInput: the volume ends inside a sector.
        QmpRefused, QmpClosed, TimedOut: QEMU's words are in the details.
    """
    size_bytes = layout.size_bytes or os.lseek(descriptor, 0, os.SEEK_END)
    if size_bytes % SECTOR_BYTES:  # a resize to whole sectors would cut it
        raise InvalidInput(
            "the volume ends inside a sector",
            details=f"it has {size_bytes} bytes, which is no multiple of {SECTOR_BYTES}",
            resolution="grow it to whole MiB",
            field="volume",
        )
    await _require_closed(monitor, slot)
    try:
        await monitor.hand_over(descriptor, slot.volume_set)
        if layout.base >= 0:
            await monitor.hand_over(layout.base, slot.base_set)
        if announce and needs_scratch(slot, layout):
            await _hand_scratch(monitor, slot)
        async with _standing(monitor, running=running):
            await _send(monitor, attach_phases(slot, size_bytes, layout=layout, announce=announce))
    except BaseException:
        await clear(monitor, slot)
        raise
    await _try(monitor, closing_commands(slot, keep_volume=True))
    return size_bytes


async def detach(monitor: Qmp, slot: Slot, *, running: bool) -> None:
    """Take the volume out of a slot; the guest has unmounted it before, or loses what it had not written.

    When QEMU refuses, for what was written cannot be flushed, the volume stays in the slot. After any other failure
    ``occupied_slots`` tells. A paused QEMU keeps its copy of the volume, and with it the kernel's lock, until it runs
    and the next volume comes to this slot: detach from machines that run.

    Raises:
        QmpRefused, QmpClosed, TimedOut: QEMU's words are in the details.
    """
    leaving, *left = detach_phases(slot)[1:]
    async with _standing(monitor, running=running):
        try:
            await _hand_scratch(monitor, slot)
            await _send(monitor, [_scratch_in(slot), leaving])
        except QmpRefused:
            await _try(monitor, [_delete(slot.scratch)])
            raise
        except BaseException:
            await clear(monitor, slot)
            raise
        try:
            await _send(monitor, left)
        except BaseException:
            await clear(monitor, slot)
            raise
    await _try(monitor, closing_commands(slot))


async def clear(monitor: Qmp, slot: Slot) -> None:
    """Make a slot empty that was half filled or half emptied."""
    await _try(monitor, [*clearing_commands(slot), *closing_commands(slot)])


async def _require_closed(monitor: Qmp, slot: Slot) -> None:
    """Have QEMU close what was in the slot before: of two descriptors in one set it might open the older one.

    Raises:
        Conflict: there is a volume in the slot, or QEMU was paused when it was taken away and still is.
    """
    for attempt in ("look", "close and look"):
        if attempt != "look":
            await _try(monitor, closing_commands(slot))
        sets = {entry["fdset-id"] for entry in await monitor.execute("query-fdsets")}
        if not sets & {slot.volume_set, slot.scratch_set, slot.base_set}:
            return
    raise Conflict(
        "the place for the volume is taken",
        details=f"QEMU still has what was in slot {slot.number}",
        resolution="let the machine run, detach what is in it, and try again",
    )


@asynccontextmanager
async def _standing(monitor: Qmp, *, running: bool) -> AsyncIterator[None]:
    """Let a running machine's CPUs stand still for a moment: the guest looks when all is in place."""
    if not running:
        yield
        return
    try:
        # Inside: a QEMU that answers too late stops all the same.
        await monitor.execute("stop", timeout_s=FLUSH_TIMEOUT_S)
        yield
    finally:
        await monitor.execute("cont", timeout_s=FLUSH_TIMEOUT_S)


async def _send(monitor: Qmp, phases: Sequence[Phase]) -> None:
    for phase in phases:
        await monitor.execute_all(phase, timeout_s=FLUSH_TIMEOUT_S)


async def _try(monitor: Qmp, commands: Sequence[Command]) -> None:
    for command, arguments in commands:
        with contextlib.suppress(QmpRefused):  # it had not come that far
            await monitor.execute(command, arguments, timeout_s=FLUSH_TIMEOUT_S)


async def _hand_scratch(monitor: Qmp, slot: Slot) -> None:
    with _scratch_file() as scratch:
        await monitor.hand_over(scratch, slot.scratch_set)


@contextlib.contextmanager
def _scratch_file() -> Iterator[int]:
    """A file in memory: QEMU takes it for one on disk, and it is gone with the last descriptor."""
    descriptor = os.memfd_create("slot-scratch", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, SECTOR_BYTES)
        yield descriptor
    finally:
        os.close(descriptor)


def _over(slot: Slot, below: str, *, read_only: bool | None = None) -> dict[str, object]:
    """Describe the slot's own node over another one."""
    is_read_only = slot.read_only if read_only is None else read_only
    node: dict[str, object] = {"driver": "raw", "node-name": slot.node, "read-only": is_read_only}
    return node | ({} if slot.read_only else {"discard": "unmap"}) | {"file": below}


def _volume(slot: Slot, layout: VolumeLayout) -> dict[str, object]:
    """Describe what is below the slot's own node: the file, or the part of the disk in it."""
    node = _inherited(slot.volume_set, read_only=slot.read_only, is_block=layout.is_block)
    if layout.format != "raw":
        below = {"driver": layout.base_format, "read-only": True, "file": _inherited(slot.base_set, read_only=True)}
        backing: dict[str, object] = {"backing": below if layout.base >= 0 else None}
        node = {"driver": layout.format, "file": node, **_access(read_only=slot.read_only), **backing}
        if layout.base >= 0 and layout.base_format != "raw":
            below["backing"] = None
    if layout.size_bytes:
        part: dict[str, object] = {"driver": "raw", "offset": layout.offset_bytes, "size": layout.size_bytes}
        node = {**part, "file": node, **_access(read_only=slot.read_only)}
    return {"node-name": slot.volume, **node}


def _inherited(set_id: int, *, read_only: bool, is_block: bool = False) -> dict[str, object]:
    driver = "host_device" if is_block else "file"
    return {"driver": driver, "filename": f"/dev/fdset/{set_id}", **_access(read_only=read_only)}


def _access(*, read_only: bool) -> dict[str, object]:
    return {"read-only": True} if read_only else {"discard": "unmap"}


def _reopen(node: Mapping[str, object]) -> Command:
    return "blockdev-reopen", {"options": [node]}


def _resize(slot: Slot, size_bytes: int) -> Command:
    return "block_resize", {"node-name": slot.node, "size": size_bytes}


def _scratch_in(slot: Slot) -> list[Command]:
    return [("blockdev-add", {"node-name": slot.scratch, **_inherited(slot.scratch_set, read_only=False)})]


def _delete(node: str) -> Command:
    return "blockdev-del", {"node-name": node}


def _remove(set_id: int) -> Command:
    return "remove-fd", {"fdset-id": set_id}


def _json(node: Mapping[str, object]) -> str:
    return json.dumps(node, separators=(",", ":"))
