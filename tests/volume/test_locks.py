"""Who has a volume: between tasks, between processes, across crashes, and never two who write."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hearth.errors import InvalidInput, NotFound
from hearth.host.clock import SystemClock
from hearth.volume.base import AttachMode, FileSystem, VolumeInUse, VolumeSpec
from hearth.volume.file import FileVolumes
from hearth.volume.locks import Attachments, RecordDamaged

READ_WRITE, READ_ONLY = AttachMode.READ_WRITE, AttachMode.READ_ONLY

ACQUIRE = """
import asyncio, os, sys
from pathlib import Path
from hearth.errors import HearthError
from hearth.host.clock import SystemClock
from hearth.volume.base import AttachMode
from hearth.volume.file import FileVolumes
from hearth.volume.locks import Attachments
root, machine, mode = Path(sys.argv[1]), sys.argv[2], AttachMode(sys.argv[3])
volumes = FileVolumes(root / "volumes", clock=SystemClock())
attachments = Attachments(root / "attachments", volumes, clock=SystemClock())
sys.stdin.readline()
try:
    held = asyncio.run(attachments.acquire("data", machine, mode))
except HearthError as error:
    print("refused", error.details, flush=True)
else:
    print("has", flush=True)
sys.stdin.read()
"""
"""Acquires when it is told to, then keeps the descriptor as a VMM would, until its standard input ends."""


@pytest.fixture
async def volumes(tmp_path: Path) -> FileVolumes:
    """A place with one blank volume, ``data``."""
    made = FileVolumes(tmp_path / "volumes", clock=SystemClock())
    made.prepare()
    await made.create(VolumeSpec(name="data", size_mib=16, fs=FileSystem.NONE))
    return made


@pytest.fixture
def attachments(tmp_path: Path, volumes: FileVolumes) -> Attachments:
    made = Attachments(tmp_path / "attachments", volumes, clock=SystemClock())
    made.prepare()
    return made


@contextmanager
def vmm(root: Path, machine: str, mode: AttachMode) -> Iterator[subprocess.Popen[str]]:
    """Another process that will acquire the volume."""
    command = [sys.executable, "-c", ACQUIRE, str(root), machine, mode.value]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


async def test_one_writes_and_the_next_is_told_who(attachments: Attachments) -> None:
    with await attachments.acquire("data", "sb-a", READ_WRITE) as attachment:
        os.pwrite(attachment.descriptor, b"mine", 0)
        for mode in AttachMode:
            with pytest.raises(VolumeInUse, match=r"sb-a \(read-write, since 20"):
                await attachments.acquire("data", "sb-b", mode)
    assert [holder.machine for holder in attachments.holders("data")] == ["sb-a"]


async def test_many_read_together_and_nobody_writes_meanwhile(attachments: Attachments) -> None:
    held = [await attachments.acquire("data", f"sb-{number}", READ_ONLY) for number in range(3)]
    with pytest.raises(VolumeInUse, match="sb-0"):
        await attachments.acquire("data", "sb-w", READ_WRITE)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.pwrite(held[0].descriptor, b"x", 0)
    for attachment in held:
        attachment.close()
        await attachments.release("data", attachment.machine)
    (await attachments.acquire("data", "sb-w", READ_WRITE)).close()


async def test_of_many_tasks_one_gets_it(attachments: Attachments) -> None:
    attempts = [attachments.acquire("data", f"sb-{number}", READ_WRITE) for number in range(20)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    winners = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(winners) == 1
    assert all(isinstance(outcome, VolumeInUse) for outcome in outcomes if outcome not in winners)
    assert [holder.machine for holder in attachments.holders("data")] == [winners[0].machine]
    winners[0].close()


@pytest.mark.parametrize("round_number", range(3))
async def test_of_two_processes_one_gets_it(attachments: Attachments, tmp_path: Path, round_number: int) -> None:
    with vmm(tmp_path, "sb-a", READ_WRITE) as one, vmm(tmp_path, "sb-b", READ_WRITE) as other:
        go(one)
        go(other)
        answers = [answer(one), answer(other)]
    assert sorted(text.split()[0] for text in answers) == ["has", "refused"]
    assert len(attachments.holders("data")) == 1


async def test_a_record_is_given_up_only_when_the_process_that_has_the_volume_is_gone(
    attachments: Attachments, tmp_path: Path
) -> None:
    with vmm(tmp_path, "sb-a", READ_WRITE) as process:
        go(process)
        assert answer(process) == "has\n"
        with pytest.raises(VolumeInUse, match="VMM of sb-a"):
            await attachments.release("data", "sb-a")
        with pytest.raises(VolumeInUse):
            await attachments.release_machine("sb-a")
        assert len(attachments.holders("data")) == 1
        process.kill()
        process.wait()
        await attachments.release_machine("sb-a")
    assert attachments.list() == []
    (await attachments.acquire("data", "sb-b", READ_WRITE)).close()


async def test_a_dead_reader_is_released_though_another_still_reads(attachments: Attachments, tmp_path: Path) -> None:
    with vmm(tmp_path, "sb-a", READ_ONLY) as dying, vmm(tmp_path, "sb-b", READ_ONLY) as living:
        for process in (dying, living):
            go(process)
            assert answer(process) == "has\n"
        dying.kill()
        dying.wait()
        await attachments.release("data", "sb-a")
        with pytest.raises(VolumeInUse, match="sb-b"):
            await attachments.release("data", "sb-b")
    assert [holder.machine for holder in attachments.holders("data")] == ["sb-b"]


async def test_a_machine_whose_vmm_died_gets_its_volume_back_and_nobody_else_does(
    attachments: Attachments, tmp_path: Path
) -> None:
    with vmm(tmp_path, "sb-a", READ_WRITE) as process:
        go(process)
        assert answer(process) == "has\n"
        with pytest.raises(VolumeInUse, match="open in a process"):
            await attachments.acquire("data", "sb-a", READ_WRITE)
    with pytest.raises(VolumeInUse, match="attached to sb-a"):
        await attachments.acquire("data", "sb-b", READ_WRITE)
    (await attachments.acquire("data", "sb-a", READ_WRITE)).close()
    with pytest.raises(VolumeInUse, match="already"):
        await attachments.acquire("data", "sb-a", READ_ONLY)


async def test_without_any_record_a_process_that_has_the_volume_is_still_in_the_way(
    attachments: Attachments, tmp_path: Path
) -> None:
    with vmm(tmp_path, "sb-a", READ_WRITE) as process:
        go(process)
        assert answer(process) == "has\n"
        (tmp_path / "attachments" / "data.json").unlink()
        for mode in AttachMode:
            with pytest.raises(VolumeInUse, match="open in a process"):
                await attachments.acquire("data", "sb-b", mode)
    assert attachments.list() == []


async def test_the_next_daemon_finds_all_attachments(
    attachments: Attachments, volumes: FileVolumes, tmp_path: Path
) -> None:
    await volumes.create(VolumeSpec(name="other.json", size_mib=16, fs=FileSystem.NONE))
    (await attachments.acquire("data", "sb-a", READ_WRITE)).close()
    (await attachments.acquire("other.json", "sb-a", READ_ONLY)).close()
    (await attachments.acquire("other.json", "sb-b", READ_ONLY)).close()
    found = Attachments(tmp_path / "attachments", volumes, clock=SystemClock()).list()
    assert [(claim.volume, claim.holder.machine, claim.holder.mode) for claim in found] == [
        ("data", "sb-a", READ_WRITE),
        ("other.json", "sb-a", READ_ONLY),
        ("other.json", "sb-b", READ_ONLY),
    ]
    await attachments.release_machine("sb-a")
    assert [claim.holder.machine for claim in attachments.list()] == ["sb-b"]


async def test_only_a_volume_nobody_has_can_be_reserved_and_then_nobody_gets_it(
    attachments: Attachments, volumes: FileVolumes
) -> None:
    async with attachments.reserved("data"):
        with pytest.raises(VolumeInUse, match="being deleted"):
            await attachments.acquire("data", "sb-a", READ_WRITE)
        await volumes.delete("data")
    with pytest.raises(NotFound):
        await attachments.acquire("data", "sb-a", READ_WRITE)
    await volumes.create(VolumeSpec(name="data", size_mib=16, fs=FileSystem.NONE))
    (await attachments.acquire("data", "sb-a", READ_ONLY)).close()
    async with attachments.reserved("data", for_reading=True):
        pass
    with pytest.raises(VolumeInUse, match="sb-a"):
        async with attachments.reserved("data"):
            pytest.fail("reserved though attached")


async def test_a_volume_grown_since_it_was_attached_is_a_new_file_and_the_machine_gets_that(
    attachments: Attachments, volumes: FileVolumes
) -> None:
    await volumes.create(VolumeSpec(name="grows", size_mib=16))
    async with attachments.reserved("grows"):
        await volumes.resize("grows", 32)
    with await attachments.acquire("grows", "sb-a", READ_WRITE) as attachment:
        assert os.fstat(attachment.descriptor).st_size == 32 * 1024 * 1024


async def test_a_damaged_record_is_said_and_never_taken_for_none(attachments: Attachments, tmp_path: Path) -> None:
    (await attachments.acquire("data", "sb-a", READ_WRITE)).close()
    path = tmp_path / "attachments" / "data.json"
    for text in ("", "{", '{"holders": [{"machine": 3}]}'):
        path.write_text(text)
        with pytest.raises(RecordDamaged, match=str(path)):
            await attachments.acquire("data", "sb-b", READ_WRITE)
        with pytest.raises(RecordDamaged):
            await attachments.release("data", "sb-a")
    assert path.read_text() == '{"holders": [{"machine": 3}]}'


async def test_what_is_not_attached_or_not_there_any_more_is_released_all_the_same(
    attachments: Attachments, volumes: FileVolumes, tmp_path: Path
) -> None:
    await attachments.release("data", "sb-a")
    (await attachments.acquire("data", "sb-a", READ_WRITE)).close()
    await volumes.delete("data")
    await attachments.release("data", "sb-a")
    assert list((tmp_path / "attachments").iterdir()) == []


@pytest.mark.parametrize(("volume", "machine"), [("../x", "sb-a"), ("data", "../x"), ("data", ""), ("", "sb-a")])
async def test_names_that_are_paths_reach_no_file(attachments: Attachments, volume: str, machine: str) -> None:
    with pytest.raises(InvalidInput):
        await attachments.acquire(volume, machine, READ_WRITE)
