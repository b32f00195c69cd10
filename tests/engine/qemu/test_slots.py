"""Volumes put into and taken out of machines: golden commands, and QEMU's own judgement of them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hearth.engine.qemu.handover import connect, listening
from hearth.engine.qemu.qmp import Qmp, QmpRefused
from hearth.engine.qemu.slots import (
    Slot,
    all_slots,
    attach,
    attach_phases,
    choose_slot,
    clearing_commands,
    detach,
    detach_phases,
    occupied_slots,
    slot_words,
)
from hearth.errors import Conflict, InvalidInput
from hearth.host.clock import SystemClock
from hearth.host.files import hash_file
from hearth.volume.base import AttachMode, VolumeInUse, VolumeSpec
from hearth.volume.file import FileVolumes
from hearth.volume.locks import Attachments

MEBIBYTE = 1024 * 1024
WRITABLE = Slot(number=0, read_only=False)
READ_ONLY = Slot(number=1, read_only=True)
SLOTS = (WRITABLE, READ_ONLY)

OVER_VOLUME = {
    "driver": "raw",
    "node-name": "slot0",
    "read-only": False,
    "discard": "unmap",
    "file": "slot0-volume",
}
OVER_SHARE = {"driver": "raw", "node-name": "slot1", "read-only": True, "file": "slot1-volume"}
SCRATCH = {"driver": "file", "node-name": "slot1-scratch", "filename": "/dev/fdset/103", "discard": "unmap"}


def test_slots_come_empty_each_with_a_node_of_its_own_that_stays() -> None:
    assert slot_words(SLOTS, "device") == [
        "-blockdev",
        '{"driver":"null-co","node-name":"slot0-empty","size":0,"read-zeroes":true,"read-only":false}',
        "-blockdev",
        '{"driver":"raw","node-name":"slot0","read-only":false,"discard":"unmap","file":"slot0-empty"}',
        "-device",
        "virtio-blk-device,drive=slot0,serial=slot0",
        "-blockdev",
        '{"driver":"null-co","node-name":"slot1-empty","size":0,"read-zeroes":true,"read-only":true}',
        "-blockdev",
        '{"driver":"raw","node-name":"slot1","read-only":true,"file":"slot1-empty"}',
        "-device",
        "virtio-blk-device,drive=slot1,serial=slot1",
    ]
    assert "virtio-blk-pci,drive=slot1,serial=slot1" in slot_words(SLOTS, "pci")


def test_a_writable_volume_is_added_swapped_in_and_announced_one_after_the_other() -> None:
    assert attach_phases(WRITABLE, MEBIBYTE) == [
        [
            (
                "blockdev-add",
                {
                    "driver": "file",
                    "node-name": "slot0-volume",
                    "filename": "/dev/fdset/100",
                    "discard": "unmap",
                },
            )
        ],
        [("blockdev-reopen", {"options": [OVER_VOLUME]})],
        [("block_resize", {"node-name": "slot0", "size": MEBIBYTE})],
    ]


def test_a_read_only_volume_is_announced_over_a_scratch_file_and_never_opened_for_writing() -> None:
    share = {"driver": "file", "node-name": "slot1-volume", "filename": "/dev/fdset/102", "read-only": True}
    over_scratch = {"driver": "raw", "node-name": "slot1", "read-only": False, "file": "slot1-scratch"}
    assert attach_phases(READ_ONLY, MEBIBYTE) == [
        [("blockdev-add", share), ("blockdev-add", SCRATCH)],
        [("blockdev-reopen", {"options": [over_scratch]})],
        [("block_resize", {"node-name": "slot1", "size": MEBIBYTE})],
        [("blockdev-reopen", {"options": [OVER_SHARE]})],
        [("blockdev-del", {"node-name": "slot1-scratch"})],
    ]


def test_a_guest_that_knows_its_volume_already_is_told_nothing() -> None:
    for slot in SLOTS:
        commands = [command for phase in attach_phases(slot, MEBIBYTE, announce=False) for command, _ in phase]
        assert commands == ["blockdev-add", "blockdev-reopen"]


@pytest.mark.parametrize("slot", SLOTS)
def test_only_a_scratch_file_is_ever_cut_to_nothing(slot: Slot) -> None:
    phases = detach_phases(slot)
    assert [[command for command, _ in phase] for phase in phases] == [
        ["blockdev-add"],
        ["blockdev-reopen"],
        ["block_resize"],
        ["blockdev-reopen"],
        ["blockdev-del", "blockdev-del"],
    ]
    commands = [command for phase in phases for command in phase]
    below = [json.dumps(arguments) for command, arguments in commands if command == "blockdev-reopen"]
    assert slot.scratch in below[0]
    assert slot.empty in below[1]


def test_slots_are_given_out_by_kind_until_there_are_none() -> None:
    slots = all_slots(2, 1)
    assert [slot.guest_device for slot in slots] == ["/dev/vdb", "/dev/vdc", "/dev/vdd"]
    assert choose_slot(slots, set(), read_only=True).number == 2
    assert choose_slot(slots, {0}, read_only=False).number == 1
    with pytest.raises(Conflict, match="2 places for writable"):
        choose_slot(slots, {0, 1}, read_only=False)
    sets = [number for slot in slots for number in (slot.volume_set, slot.scratch_set)]
    assert len(set(sets)) == len(sets)


class Vmm:
    """A QEMU with slots whose CPUs find nothing to boot, and its monitor."""

    def __init__(self, monitor: Qmp) -> None:
        self.monitor = monitor

    async def occupied(self) -> set[int]:
        return occupied_slots(SLOTS, await self.monitor.execute("query-named-block-nodes", {"flat": True}))

    async def size_bytes(self, slot: Slot) -> int:
        """What the guest's disk is at this moment."""
        for block in await self.monitor.execute("query-block"):
            inserted = block.get("inserted", {})
            if inserted.get("node-name") == slot.node:
                size: int = inserted["image"]["virtual-size"]
                return size
        pytest.fail(f"no disk over {slot.node}")

    async def descriptor_sets(self) -> list[int]:
        return [entry["fdset-id"] for entry in await self.monitor.execute("query-fdsets")]


@contextlib.contextmanager
def running_qemu(directory: Path) -> Iterator[Path]:
    """Start it and give its monitor's socket."""
    directory.mkdir()
    path = directory / "qmp.sock"
    with listening(path) as qmp:
        command = [
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg"),
            *("-M", "microvm,x-option-roms=off,acpi=on", "-bios", "qboot.rom", "-m", "16"),
            *("-chardev", f"socket,id=qmp,fd={qmp.fileno()},server=on,wait=off", "-mon", "chardev=qmp,mode=control"),
            *slot_words(SLOTS, "device"),
            *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        ]
        process = subprocess.Popen(command, pass_fds=[qmp.fileno()], stdin=subprocess.DEVNULL)
    try:
        yield path
    finally:
        process.kill()
        process.wait()


@contextlib.asynccontextmanager
async def started(directory: Path) -> AsyncIterator[Vmm]:
    with running_qemu(directory) as path:
        monitor = await Qmp.open(connect(path))
        try:
            yield Vmm(monitor)
        finally:
            await monitor.close()


@pytest.fixture
async def vmm(tmp_path: Path) -> AsyncIterator[Vmm]:
    async with started(tmp_path / "vmm") as made:
        yield made


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "volume"
    path.write_bytes(b"begin" + bytes(2 * MEBIBYTE - 8) + b"end")
    return path


@contextlib.contextmanager
def open_file(path: Path, flags: int = os.O_RDWR) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def content(path: Path) -> str:
    """A hash of all bytes, as sha256sum prints it for its standard input."""
    return f"{hash_file(path)}  -\n"


@pytest.mark.parametrize("slot", SLOTS, ids=["writable", "read-only"])
async def test_qemu_takes_a_volume_and_gives_it_back_as_often_as_one_likes(vmm: Vmm, volume: Path, slot: Slot) -> None:
    before = content(volume)
    for _ in range(3):
        with open_file(volume, os.O_RDONLY if slot.read_only else os.O_RDWR) as descriptor:
            assert await attach(vmm.monitor, slot, descriptor, running=True) == 2 * MEBIBYTE
        assert await vmm.size_bytes(slot) == 2 * MEBIBYTE
        assert await vmm.occupied() == {slot.number}
        await detach(vmm.monitor, slot, running=True)
        assert await vmm.size_bytes(slot) == 0
        assert await vmm.occupied() == set()
        assert await vmm.descriptor_sets() == []
    assert content(volume) == before


async def test_a_volume_open_for_reading_alone_cannot_be_attached_to_write(vmm: Vmm, volume: Path) -> None:
    with open_file(volume, os.O_RDONLY) as descriptor, pytest.raises(QmpRefused):
        await attach(vmm.monitor, WRITABLE, descriptor, running=True)
    assert await vmm.occupied() == set()
    assert await vmm.descriptor_sets() == []
    with open_file(volume) as descriptor:
        await attach(vmm.monitor, WRITABLE, descriptor, running=True)


async def test_a_slot_takes_one_volume_at_a_time(vmm: Vmm, volume: Path) -> None:
    with open_file(volume, os.O_RDONLY) as descriptor:
        await attach(vmm.monitor, READ_ONLY, descriptor, running=True)
        with pytest.raises(Conflict, match="slot 1"):
            await attach(vmm.monitor, READ_ONLY, descriptor, running=True)
    assert await vmm.occupied() == {READ_ONLY.number}
    assert await vmm.size_bytes(READ_ONLY) == 2 * MEBIBYTE


async def test_a_paused_qemu_keeps_its_copy_until_it_runs_and_takes_no_other_meanwhile(vmm: Vmm, volume: Path) -> None:
    await vmm.monitor.execute("stop")
    with open_file(volume) as descriptor:
        await attach(vmm.monitor, WRITABLE, descriptor, running=False)
        await detach(vmm.monitor, WRITABLE, running=False)
        assert await vmm.size_bytes(WRITABLE) == 0
        with pytest.raises(Conflict, match="let the machine run"):
            await attach(vmm.monitor, WRITABLE, descriptor, running=False)
        await vmm.monitor.execute("cont")
        await attach(vmm.monitor, WRITABLE, descriptor, running=True)
    assert await vmm.occupied() == {WRITABLE.number}


async def test_qemu_itself_lets_one_write_or_many_read(vmm: Vmm, volume: Path, tmp_path: Path) -> None:
    async with started(tmp_path / "other") as other:
        with open_file(volume, os.O_RDONLY) as mine, open_file(volume, os.O_RDONLY) as theirs:
            await attach(vmm.monitor, READ_ONLY, mine, running=True)
            await attach(other.monitor, READ_ONLY, theirs, running=True)
        with open_file(volume) as descriptor, pytest.raises(QmpRefused, match="QEMU refused") as caught:
            await attach(other.monitor, WRITABLE, descriptor, running=True)
        assert "lock" in caught.value.details
        assert await other.size_bytes(WRITABLE) == 0


async def test_a_volume_that_ends_inside_a_sector_is_refused_before_it_is_cut(vmm: Vmm, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.write_bytes(b"x" * 1000)
    with open_file(odd) as descriptor, pytest.raises(InvalidInput, match="1000 bytes"):
        await attach(vmm.monitor, WRITABLE, descriptor, running=True)
    assert odd.stat().st_size == 1000


@pytest.fixture
async def attachments(tmp_path: Path) -> Attachments:
    """Records of who has the one volume there is, ``data``."""
    volumes = FileVolumes(tmp_path / "volumes", clock=SystemClock())
    volumes.prepare()
    await volumes.create(VolumeSpec(name="data", size_mib=16))
    made = Attachments(tmp_path / "attachments", volumes, clock=SystemClock())
    made.prepare()
    return made


async def test_a_volume_is_not_released_before_it_has_left_the_slot(vmm: Vmm, attachments: Attachments) -> None:
    with await attachments.acquire("data", "sb-a", AttachMode.READ_WRITE) as attachment:
        await attach(vmm.monitor, WRITABLE, attachment.descriptor, running=True)
    with pytest.raises(VolumeInUse, match="VMM of sb-a"):
        await attachments.release("data", "sb-a")
    await detach(vmm.monitor, WRITABLE, running=True)
    await attachments.release("data", "sb-a")
    (await attachments.acquire("data", "sb-b", AttachMode.READ_WRITE)).close()


async def test_a_vmm_that_is_killed_holds_its_volumes_no_longer(attachments: Attachments, tmp_path: Path) -> None:
    async with started(tmp_path / "doomed") as doomed:
        with await attachments.acquire("data", "sb-a", AttachMode.READ_ONLY) as attachment:
            await attach(doomed.monitor, READ_ONLY, attachment.descriptor, running=True)
        with pytest.raises(VolumeInUse):
            await attachments.release_machine("sb-a")
    await attachments.release_machine("sb-a")
    assert attachments.list() == []


def test_clearing_never_resizes_anything() -> None:
    assert "block_resize" not in [command for slot in SLOTS for command, _ in clearing_commands(slot)]
