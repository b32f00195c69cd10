"""What a tool that reads a guest's bytes can do: nothing but that."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearth.errors import HostUnfit, TimedOut
from hearth.host.process import TAIL_BYTES
from hearth.volume.confined import DISK, DISK_DESCRIPTOR, run_on

MEBIBYTE = 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[int]:
    """An open file of 1 MiB in a directory for its owner alone."""
    (tmp_path / "private").mkdir(mode=0o700)
    descriptor = os.open(tmp_path / "private" / "disk", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(descriptor, MEBIBYTE)
    yield descriptor
    os.close(descriptor)


async def sh(disk: int, script: str, timeout_s: float = 30.0) -> tuple[int | None, str]:
    outcome = await run_on(disk, ["sh", "-c", script], timeout_s=timeout_s)
    return outcome.status, outcome.tail


async def test_a_tool_reads_and_writes_the_one_file_it_was_given(disk: int) -> None:
    assert await sh(disk, f"printf hello | dd of={DISK} conv=notrunc status=none; head -c 5 {DISK}") == (0, "hello")
    assert os.pread(disk, 5, 0) == b"hello"
    assert os.fstat(disk).st_uid == os.geteuid()
    assert os.fstat(disk).st_mode & 0o777 == 0o600


@pytest.mark.root
async def test_a_tool_has_no_rights_no_network_no_neighbours_and_nothing_else_open(disk: int, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    secret.chmod(0o600)
    status, said = await sh(disk, f"cat {secret}; ls {tmp_path}/private")
    assert (status, "Permission denied" in said) == (2, True)
    _, first = await sh(
        disk, "id -u; grep -c : /proc/net/dev; grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/self/status; ls /proc/self/fd"
    )
    user, interfaces, *rest = first.split("\n")
    assert int(user) > 1_000_000_000
    assert interfaces == "1"
    assert [line.split()[-1] for line in rest[:3]] == ["0" * 16, "0" * 16, "1"]
    assert set(rest[3:]) <= {"0", "1", "2", str(DISK_DESCRIPTOR), str(DISK_DESCRIPTOR + 1)}
    _, second = await sh(disk, "id -u")
    assert second != user


async def test_a_file_cannot_be_made_larger_than_it_is(disk: int) -> None:
    outcome = await run_on(disk, ["dd", "if=/dev/zero", f"of={DISK}", "bs=64k", "count=64"], timeout_s=30)
    assert outcome.status != 0
    assert os.fstat(disk).st_size == MEBIBYTE


async def test_memory_is_bounded(disk: int) -> None:
    status, said = await sh(disk, f"{sys.executable} -c 'bytearray(3 << 30)' || python3 -c 'bytearray(3 << 30)'")
    assert status != 0, said


async def test_endless_talk_is_read_and_only_its_end_kept(disk: int) -> None:
    status, said = await sh(disk, "yes abcdefgh | head -c 20000000; echo; echo last")
    assert status == 0
    assert len(said) <= TAIL_BYTES
    assert said.endswith("last")


async def test_a_tool_that_hangs_or_is_not_wanted_any_more_is_ended(disk: int) -> None:
    with pytest.raises(TimedOut, match="sh took longer"):
        await sh(disk, "exec sleep 1000", timeout_s=0.3)
    task = asyncio.create_task(sh(disk, "echo up; exec sleep 1000"))
    await asyncio.wait({task}, timeout=0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert os.fstat(disk).st_uid == os.geteuid()


async def test_a_tool_that_is_not_there_is_named(disk: int) -> None:
    with pytest.raises(HostUnfit, match="no-such-tool is not installed"):
        await run_on(disk, ["no-such-tool"], timeout_s=5)
