"""Commands without HTTP: what is remembered of them, how their logs are kept within bounds, what survives what."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from tests.control.conftest import LOCAL, House

from hearth.config import DataDirectory
from hearth.control.daemon import open_daemon
from hearth.control.exec_follow import Follower, Gap
from hearth.control.exec_index import GATHER_S
from hearth.control.exec_log import ExecLog, LogDesk
from hearth.control.exec_run import ExecOrder
from hearth.errors import Conflict, HearthError, InvalidInput, NotFound, TimedOut, Unavailable
from hearth.execs import SHOWN_ARGV_CHARS, Exec, ExecState, shown_argv
from hearth.journal.records import Piece
from hearth.model import Sandbox, SandboxSpec
from hearth.wire.messages import ExecRequest

END_S = 60.0
MIB = 1024 * 1024
SMALL = replace(LOCAL, exec_log_max_mib=1, exec_logs_max_mib=3, exec_logs_max_mib_per_user=5, execs_kept=4)


def order(*argv: str, **changes: object) -> ExecOrder:
    return replace(ExecOrder(request=ExecRequest(argv=list(argv))), **changes)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def small_house(data: DataDirectory) -> AsyncIterator[House]:
    """A house whose logs are small."""
    async with open_daemon(data, SMALL) as daemon:
        house = House(data, daemon, await daemon.users.authenticate(data.admin_key.read_text().strip()))
        try:
            yield house
        finally:
            await house.destroy_all()


async def create(house: House, name: str) -> Sandbox:
    return (await house.sandboxes.create(house.admin, SandboxSpec(name=name))).sandbox


async def ended(house: House, exec_id: str) -> Exec:
    """Wait for a command's end."""
    following = await house.daemon.execs.follow(house.admin, exec_id, 0)
    async with asyncio.timeout(END_S):
        async for _ in following.follower.pieces(waits=True):
            pass
    return following.exec


async def kept(house: House, sandbox: Sandbox, *argv: str) -> str:
    """Run a kept command to its end and give its id, while the daemon may still be busy with that end."""
    started = await house.daemon.execs.start(house.admin, sandbox.id, order(*argv, detached=True))
    await ended(house, started.id)
    return started.id


async def written(house: House, exec_id: str) -> tuple[bytes, list[Gap]]:
    """Give all that is kept of a command's output, and the gaps."""
    data, gaps = b"", []
    following = await house.daemon.execs.follow(house.admin, exec_id, 0)
    async for piece in following.follower.pieces(waits=False):
        if isinstance(piece, Gap):
            gaps.append(piece)
        else:
            data += piece.data
    return data, gaps


async def run(house: House, sandbox: Sandbox, *argv: str) -> str:
    """Run a plain command to its end and give its id."""
    async with house.daemon.execs.run(house.admin, sandbox.id, order(*argv)) as running:
        async for _ in running:
            pass
    return running.id


def files_of(house: House, sandbox: Sandbox) -> list[Path]:
    directory = house.data.execs / sandbox.id
    return sorted(directory.iterdir()) if directory.exists() else []


async def test_a_plain_command_is_remembered_whatever_its_end(house: House) -> None:
    execs, box = house.daemon.execs, await create(house, "box")
    good = await run(house, box, "sh", "-c", "echo out; echo err >&2; exit 3")
    with pytest.raises(TimedOut):
        async with execs.run(house.admin, box.id, order("sleep", "1000", timeout_s=0.3)) as running:
            async for _ in running:
                pass
    late = running.id
    with contextlib.suppress(ZeroDivisionError):
        async with execs.run(house.admin, box.id, order("sleep", "1000")) as running:
            raise ZeroDivisionError
    left = running.id
    page = await execs.list(house.admin, "box")
    assert [each.id for each in page.items] == [good, late, left]
    assert [(each.state, each.exit_code, each.failure and each.failure.code) for each in page.items] == [
        (ExecState.EXITED, 3, None),
        (ExecState.FAILED, None, "timeout"),
        (ExecState.FAILED, None, "cancelled"),
    ]
    data, gaps = await written(house, good)
    assert (sorted(data.split()), gaps) == ([b"err", b"out"], [])
    assert (await execs.list(house.admin, "box", states=[ExecState.RUNNING])).items == []


async def test_all_output_of_a_command_that_has_just_ended_is_there(house: House) -> None:
    box = await create(house, "box")
    for _ in range(5):
        assert await written(house, await run(house, box, "echo", "out")) == (b"out\n", [])


async def test_an_empty_command_and_an_unknown_one_are_refused(house: House) -> None:
    box = await create(house, "box")
    with pytest.raises(InvalidInput, match="empty"):
        await house.daemon.execs.start(house.admin, box.id, order("", detached=True))
    with pytest.raises(NotFound):
        await house.daemon.execs.get(house.admin, "ex-none")
    with pytest.raises(NotFound):
        await house.daemon.execs.start(house.admin, "nosuch", order("true", detached=True))


async def test_a_command_that_writes_nothing_has_no_file(house: House) -> None:
    box = await create(house, "box")
    for _ in range(3):
        await run(house, box, "true")
    assert files_of(house, box) == []
    assert len((await house.daemon.execs.list(house.admin, "box")).items) == 3


async def test_more_kept_commands_than_the_agent_takes_are_refused(house: House) -> None:
    execs, box = house.daemon.execs, await create(house, "box")
    runs = [await execs.start(house.admin, box.id, order("sleep", "1000", detached=True)) for _ in range(32)]
    with pytest.raises(Unavailable):
        await execs.start(house.admin, box.id, order("true", detached=True))
    assert (await house.output("box", "echo", "still"))[0] == b"still\n"
    for each in runs:
        await execs.signal(house.admin, each.id, 9)
        assert (await ended(house, each.id)).exit_code == 137


async def test_commands_of_one_sandbox_stay_within_their_number(data: DataDirectory) -> None:
    async with small_house(data) as house:
        box = await create(house, "box")
        ids = [await run(house, box, "echo", str(number)) for number in range(7)]
        await house.daemon.execs.upkeep.tidy()
        assert [each.id for each in (await house.daemon.execs.list(house.admin, "box")).items] == ids[3:]
        assert len(files_of(house, box)) == 4


async def test_what_is_too_old_goes(data: DataDirectory) -> None:
    async with open_daemon(data, SMALL) as daemon:
        house = House(data, daemon, await daemon.users.authenticate(data.admin_key.read_text().strip()))
        box = await create(house, "box")
        exec_id = await run(house, box, "echo", "x")
    async with small_house(data) as house:
        found = await house.daemon.execs.get(house.admin, exec_id)
        assert (found.output_bytes, len(files_of(house, box))) == (2, 1)
        assert found.ended_at is not None
        older = replace(found, ended_at=found.ended_at - timedelta(days=8))
        await house.sandboxes.store.execs.save([older])
        await house.daemon.execs.upkeep.tidy()
        assert (await house.daemon.execs.list(house.admin, "box")).items == []
        assert files_of(house, box) == []


async def test_logs_of_a_sandbox_and_of_a_user_stay_within_their_size(data: DataDirectory) -> None:
    """What ended first goes first; of a command that runs its oldest output, where nothing that has ended is left."""
    async with small_house(data) as house:
        boxes = [await create(house, name) for name in ("one", "two", "three")]
        for box in boxes:
            for _ in range(4):
                await run(house, box, "head", "-c", "900000", "/dev/zero")
        await house.daemon.execs.upkeep.tidy()
        sizes = [sum(path.stat().st_size for path in files_of(house, box)) for box in boxes]
        assert all(size <= 3 * MIB for size in sizes)
        assert sum(sizes) <= 5 * MIB
        assert len((await house.daemon.execs.list(house.admin, "three")).items) == 3, "the last to end are still there"
        assert sizes[0] < sizes[2]


async def test_a_command_that_runs_loses_its_oldest_and_a_reader_is_told(data: DataDirectory, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with small_house(data) as house:
        execs, box = house.daemon.execs, await create(house, "box")
        script = f"head -c 3000000 /dev/zero; printf end; cat {fifo}"
        started = await execs.start(house.admin, box.id, order("sh", "-c", script, detached=True))
        async with asyncio.timeout(END_S):
            while started.exec.output_bytes < 3_000_003:
                await started.log.change()
            await started.log.written()
        found, (kept, gaps) = started.exec, await written(house, started.id)
        assert found.log_bytes <= MIB + 65_536 + 4096
        assert gaps == [Gap(0, found.log_start)]
        assert len(kept) == 3_000_003 - found.log_start
        assert kept.endswith(b"\0end")
        await asyncio.to_thread(fifo.write_text, "")
        assert (await ended(house, started.id)).exit_code == 0


async def test_many_small_pieces_cost_no_more_than_their_bound(data: DataDirectory) -> None:
    """A guest that writes single bytes pays for its records with its own log."""
    async with small_house(data) as house:
        box = await create(house, "box")
        script = "import os\nfor _ in range(60000):\n os.write(1, b'x')\n os.write(2, b'y')"
        exec_id = await run(house, box, "python3", "-c", script)
        await ended(house, exec_id)
        assert sum(path.stat().st_size for path in files_of(house, box)) <= 2 * MIB


async def test_what_an_earlier_daemon_left_without_a_row_is_swept(data: DataDirectory) -> None:
    async with small_house(data) as house:
        box = await create(house, "box")
        kept = await run(house, box, "echo", "kept")
        await ended(house, kept)
        async with asyncio.timeout(END_S):
            while not files_of(house, box):
                await asyncio.sleep(0.01)
        (file,) = files_of(house, box)
        (file.parent / file.name.replace(kept, "ex-000000000000")).write_bytes(b"x")
        stray = data.execs / "sb-gone"
        stray.mkdir()
        (stray / "ex-1.00000000000000000000.log").write_bytes(b"x")
        await house.daemon.execs.upkeep.sweep()
        assert files_of(house, box) == [file]
        assert not stray.exists()
        assert (await written(house, kept))[0] == b"kept\n"


async def test_a_daemon_that_ends_in_order_leaves_kept_commands_to_the_next(
    data: DataDirectory, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    async with open_daemon(data, LOCAL) as daemon:
        house = House(data, daemon, await daemon.users.authenticate(data.admin_key.read_text().strip()))
        box = await create(house, "box")
        script = f"echo one; cat {fifo}; exit 4"
        started = await daemon.execs.start(house.admin, box.id, order("sh", "-c", script, detached=True))
        gone = await daemon.execs.start(house.admin, box.id, order("sleep", "1000", linger_s=0.2))
        async with asyncio.timeout(END_S):
            while started.exec.output_bytes < 4:
                await started.log.change()
    async with small_house(data) as house:
        await asyncio.to_thread(fifo.write_text, "two\n")
        found = await ended(house, started.id)
        assert (found.state, found.exit_code) == (ExecState.EXITED, 4)
        assert (await written(house, started.id))[0] == b"one\ntwo\n"
        left = await ended(house, gone.id)
        assert left.failure is not None
        assert left.failure.code == "cancelled", "its client did not come back to the second daemon"


async def test_a_running_command_is_not_forgotten_and_an_ended_one_takes_no_input(house: House) -> None:
    execs, box = house.daemon.execs, await create(house, "box")
    started = await execs.start(house.admin, box.id, order("cat", detached=True, stdin_open=True, stdin=b"a"))
    with pytest.raises(Conflict):
        await execs.forget(house.admin, started.id)
    await execs.feed(house.admin, started.id, b"b", ends=True)
    assert (await ended(house, started.id)).exit_code == 0
    assert (await written(house, started.id))[0] == b"ab"
    with pytest.raises(HearthError):
        await execs.feed(house.admin, started.id, b"c", ends=False)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[LogDesk]:
    made = LogDesk(tmp_path / "execs", max_bytes=MIB, on_written=lambda *_: None)
    writing = asyncio.create_task(made.run())
    yield made
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await made.close()


async def read(desk: LogDesk, log: ExecLog, after: int = 0) -> list[Piece | Gap]:
    follower = Follower(desk.directory("sb-1"), "ex-1", after, end=log.end, live=log)
    return [piece async for piece in follower.pieces(waits=True)]


async def test_output_is_read_at_once_and_written_soon(desk: LogDesk) -> None:
    log = desk.open("sb-1", "user-1", "ex-1")
    follower = Follower(desk.directory("sb-1"), "ex-1", 0, end=0, live=log)
    pieces = follower.pieces(waits=True)
    for number in range(5):
        log.append("stdout", b"%d" % number)
        assert await anext(pieces) == Piece("stdout", number, b"%d" % number)
    async with asyncio.timeout(END_S):
        await log.written()
    log.append("stderr", b"!")
    log.finish()
    assert await anext(pieces) == Piece("stderr", 5, b"!")
    assert [piece async for piece in pieces] == []
    found = await read(desk, log, 2)
    assert b"".join(piece.data for piece in found if isinstance(piece, Piece)) == b"234!"


async def test_who_has_all_written_waits_for_what_is_just_being_written(tmp_path: Path) -> None:
    desk = LogDesk(tmp_path / "execs", max_bytes=MIB, on_written=lambda *_: None)
    try:
        log = desk.open("sb-1", "user-1", "ex-1")
        log.append("stdout", b"first ")
        flushing = asyncio.create_task(desk.flush())
        await asyncio.sleep(0)  # it is with the thread now
        await desk.flush()
        assert log.stored == log.end
        await flushing
        flushing = asyncio.create_task(desk.flush())
        log.append("stdout", b"second")
        await desk.flush()
        await flushing
        log.finish()
        found = await read(desk, log)
        assert b"".join(piece.data for piece in found if isinstance(piece, Piece)) == b"first second"
    finally:
        await desk.close()


async def test_a_log_that_cannot_be_written_ends_nothing_and_is_a_gap(desk: LogDesk) -> None:
    desk.root.mkdir()
    (desk.root / "sb-1").write_text("in the way of the directory")
    log = desk.open("sb-1", "user-1", "ex-1")
    log.append("stdout", b"lost")
    async with asyncio.timeout(END_S):
        await log.written()
    (desk.root / "sb-1").unlink()
    log.append("stdout", b"kept")
    async with asyncio.timeout(END_S):
        await log.written()
    log.finish()
    assert await read(desk, log) == [Gap(0, 4), Piece("stdout", 4, b"kept")]


async def test_a_log_takes_no_more_than_it_may_hold_before_it_is_written(desk: LogDesk) -> None:
    log = desk.open("sb-1", "user-1", "ex-1")
    for _ in range(20):
        log.append("stdout", bytes(65_536))
    held = log.is_full
    assert held
    async with asyncio.timeout(END_S):
        while log.is_full:
            await log.change()
    log.finish()


def test_a_long_command_line_is_remembered_in_part() -> None:
    assert shown_argv(["ls", "-l"]) == ("ls", "-l")
    shown = shown_argv(["sh", "-c", "x" * 100_000, "never"])
    assert sum(map(len, shown)) <= SHOWN_ARGV_CHARS + 1
    assert shown[-1].endswith("x…")


async def test_what_is_forgotten_in_the_moment_of_its_end_stays_forgotten(data: DataDirectory) -> None:
    async with small_house(data) as house:
        sandbox = await create(house, "box")
        for way in (kept, run):
            exec_id = await way(house, sandbox, "echo", "x")
            await house.daemon.execs.forget(house.admin, exec_id)
            with pytest.raises(NotFound):
                await house.daemon.execs.get(house.admin, exec_id)
            await asyncio.sleep(4 * GATHER_S)
            assert (await house.daemon.execs.list(house.admin, sandbox.id)).items == []
            assert files_of(house, sandbox) == []
