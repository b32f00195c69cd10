from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.agent.conftest import is_running, wait_until

from hearth.errors import GuestFailed, InvalidInput, StartFailed, TimedOut
from hearth.guest.client import Guest
from hearth.guest.execution import Collector, ExecResult, Output
from hearth.wire.messages import ExecRequest

LIMIT = 10_000_000


def sh(script: str) -> ExecRequest:
    return ExecRequest(argv=["sh", "-c", script])


async def run(guest: Guest, request: ExecRequest, *, stdin: bytes = b"", timeout_s: float = 120.0) -> ExecResult:
    return await guest.run(request, timeout_s=timeout_s, max_output_bytes=LIMIT, stdin=stdin)


def read_pid(file: Path) -> int:
    """Wait for a process to have written its number."""
    wait_until(lambda: file.exists() and file.read_text().endswith("\n"), "a pid file")
    return int(file.read_text())


async def written_pid(file: Path) -> int:
    return await asyncio.to_thread(read_pid, file)


async def gone(pid: int) -> None:
    await asyncio.to_thread(wait_until, lambda: not is_running(pid), f"process {pid} gone")


async def test_output_and_exit_code_come_back_apart(guest: Guest) -> None:
    result = await run(guest, sh("echo out; echo err >&2; exit 7"))
    assert result == ExecResult(exit_code=7, stdout=b"out\n", stderr=b"err\n", truncated=False)


async def test_the_input_of_a_run_ends_even_when_there_is_none(guest: Guest) -> None:
    assert (await run(guest, ExecRequest(argv=["cat"]))).stdout == b""
    assert (await run(guest, ExecRequest(argv=["cat"]), stdin=b"hello")).stdout == b"hello"


async def test_input_larger_than_every_buffer_goes_through(guest: Guest) -> None:
    data = os.urandom(3_000_000)
    assert (await run(guest, ExecRequest(argv=["cat"]), stdin=data)).stdout == data


@pytest.mark.parametrize("surplus", [0, 65_536, 131_072])
async def test_input_the_agent_holds_back_is_not_forgotten(guest: Guest, surplus: int) -> None:
    data = os.urandom(1_048_576 + surplus)
    assert (await run(guest, sh("sleep 0.1; cat"), stdin=data)).stdout == data


async def test_a_command_that_ignores_large_input_still_ends(guest: Guest) -> None:
    assert (await run(guest, sh("exit 3"), stdin=bytes(5_000_000))).exit_code == 3


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ExecRequest(argv=["/nonexistent"]), "No such file"),
        (ExecRequest(argv=["/etc/passwd"]), "Permission denied"),
        (ExecRequest(argv=["true"], cwd="/nonexistent"), "directory /nonexistent"),
    ],
    ids=["program", "permission", "directory"],
)
async def test_a_command_that_cannot_start_says_why(guest: Guest, request_: ExecRequest, words: str) -> None:
    with pytest.raises(StartFailed, match=words):
        await run(guest, request_)


async def test_a_run_that_takes_too_long_is_killed(guest: Guest, tmp_path: Path) -> None:
    for patience_s in (0.5, 10):  # a busy machine may not come to write the number in half a second
        with pytest.raises(TimedOut, match="the command took longer"):
            await run(guest, sh(f"echo $$ > {tmp_path}/pid; sleep 1000"), timeout_s=patience_s)
        if (tmp_path / "pid").exists():
            break
    await gone(await written_pid(tmp_path / "pid"))


async def test_a_cancelled_run_is_killed(guest: Guest, tmp_path: Path) -> None:
    running = asyncio.create_task(run(guest, sh(f"echo $$ > {tmp_path}/pid; sleep 1000")))
    pid = await written_pid(tmp_path / "pid")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await gone(pid)


async def test_leaving_an_execution_kills_its_process_group(guest: Guest) -> None:
    async with guest.start(sh("sleep 1000 & echo $$ $!; wait")) as execution:
        pids = [int(word) for word in (await anext(execution)).data.split()]
        with pytest.raises(GuestFailed, match="has not ended"):
            _ = execution.exit_code
    for pid in pids:
        await gone(pid)


async def test_a_dialogue_over_stdin_and_stdout(guest: Guest) -> None:
    async with guest.start(ExecRequest(argv=["cat"])) as execution:
        for word in (b"one", b"two"):
            await execution.write_stdin(word)
            assert await anext(execution) == Output("stdout", word)
        await execution.close_stdin()
        assert await execution.wait() == 0
        assert [output async for output in execution] == []


async def test_kill_and_signals_end_in_the_shells_exit_codes(guest: Guest) -> None:
    async with guest.start(sh("echo ready; sleep 1000")) as execution:
        await anext(execution)
        await execution.kill()
        assert await execution.wait() == 128 + signal.SIGKILL
    trap = "trap 'echo caught; exit 9' USR1; echo ready; while :; do sleep 0.01; done"
    async with guest.start(sh(trap)) as execution:
        await anext(execution)
        await execution.signal(signal.SIGUSR1)  # the group's sleep gets it too, on which the shell may remark
        assert [output.data async for output in execution if output.stream == "stdout"] == [b"caught\n"]
        assert execution.exit_code == 9


async def test_a_signal_or_size_that_does_not_exist_is_the_callers_error(guest: Guest) -> None:
    async with guest.start(sh("sleep 1000")) as execution:
        with pytest.raises(InvalidInput):
            await execution.signal(65)
        with pytest.raises(InvalidInput):
            await execution.resize(70_000, 1)


async def test_sixty_commands_at_a_time_all_get_their_turn(guest: Guest) -> None:
    results = await asyncio.gather(*(run(guest, sh(f"echo {n}")) for n in range(60)))
    assert [int(result.stdout) for result in results] == list(range(60))


async def test_much_output_arrives_whole(guest: Guest) -> None:
    size = 0
    async with guest.start(ExecRequest(argv=["head", "-c", "50000000", "/dev/zero"])) as execution:
        async for output in execution:
            size += len(output.data)
    assert (size, execution.exit_code) == (50_000_000, 0)


def test_the_collector_keeps_the_first_bytes_of_both_streams_together() -> None:
    collector = Collector(4)
    for piece in (Output("stderr", b"ab"), Output("stdout", b"cde"), Output("stderr", b"f")):
        collector.add(piece)
    assert collector.result(0) == ExecResult(exit_code=0, stdout=b"cd", stderr=b"ab", truncated=True)
