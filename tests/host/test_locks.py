"""File locks between real processes: one holder at a time, freed by death, deleted without a second holder."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from hearth.errors import TimedOut
from hearth.host.locks import lock, try_lock

HOLD = """
import sys
from pathlib import Path
from hearth.host.locks import try_lock
held = try_lock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""
COUNT = """
import asyncio, sys
from pathlib import Path
from hearth.host.locks import lock
async def main():
    counter = Path(sys.argv[2])
    for _ in range(25):
        async with lock(Path(sys.argv[1]), timeout_s=60) as held:
            counter.write_text(str(int(counter.read_text()) + 1))
            held.discard()
asyncio.run(main())
"""


def test_second_taker_gets_nothing_until_the_first_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = try_lock(path)
    assert first is not None
    assert try_lock(path) is None
    first.release()
    first.release()
    second = try_lock(path)
    assert second is not None
    second.release()


def test_discarded_lock_leaves_no_file_and_can_be_taken_anew(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = try_lock(path)
    assert held is not None
    held.discard()
    assert not path.exists()
    again = try_lock(path)
    assert again is not None
    held.discard()
    assert path.exists(), "a lock that was let go must not delete its successor's file"
    again.release()


async def test_waiting_ends_when_the_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    waits: list[str] = []
    holder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLD, str(path)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"held\n"

    def waiting() -> None:
        waits.append("waits")
        holder.kill()

    async with lock(path, timeout_s=30, on_wait=waiting):
        assert waits == ["waits"]
    await holder.communicate()


async def test_waiting_has_an_end(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    held = try_lock(path)
    assert held is not None
    with held, pytest.raises(TimedOut, match=str(path)):
        async with lock(path, timeout_s=0.2):
            pytest.fail("two holders")


def test_discarding_never_lets_two_processes_in(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    argv = [sys.executable, "-c", COUNT, str(tmp_path / "lock"), str(counter)]
    workers = [subprocess.Popen(argv) for _ in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert counter.read_text() == "75"
