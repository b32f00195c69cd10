from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.agent.conftest import is_running, wait_until

from hearth.errors import Conflict, InvalidInput, NotFound, StartFailed
from hearth.guest.client import Guest
from hearth.guest.sessions import Shell
from hearth.wire.messages import ExecRequest


async def read_until(shell: Shell, end: bytes) -> bytes:
    """Collect output until it holds ``end``."""
    data = b""
    async with asyncio.timeout(60):
        while end not in data:
            data += (await anext(shell)).data
    return data


def piped(script: str) -> ExecRequest:
    return ExecRequest(argv=["sh", "-c", script], session=True)


async def test_a_terminal_knows_its_size_and_is_resized(guest: Guest) -> None:
    async with guest.sessions.open(ExecRequest(argv=["sh"], tty=True, rows=40, cols=120)) as shell:
        assert (shell.info.tty, shell.info.running, shell.info.attached) == (True, True, True)
        await shell.write_stdin(b"stty size\n")
        await read_until(shell, b"40 120")
        await shell.resize(50, 99)
        await shell.write_stdin(b"stty size\n")
        await read_until(shell, b"50 99")
        await shell.write_stdin(b"exit 5\n")
        assert await shell.wait() == 5


async def test_a_session_outlives_its_client_and_replays_what_it_missed(guest: Guest, tmp_path: Path) -> None:
    script = (
        f"echo one; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo two; touch {tmp_path}/done; cat; exit 4"
    )
    async with guest.sessions.open(piped(script)) as shell:
        await read_until(shell, b"one\n")
    (tmp_path / "go").touch()
    await asyncio.to_thread(wait_until, (tmp_path / "done").exists, "output without a client")
    async with guest.sessions.attach(shell.info.session_id) as again:
        assert again.info.session_id == shell.info.session_id
        assert await read_until(again, b"two\n") == b"one\ntwo\n"
        await again.close_stdin()
        assert await again.wait() == 4


async def test_another_client_takes_a_session_over(guest: Guest) -> None:
    async with guest.sessions.open(piped("echo ready; cat")) as first:
        await read_until(first, b"ready\n")
        with pytest.raises(Conflict):
            async with guest.sessions.attach(first.info.session_id, if_detached=True):
                pass
        async with guest.sessions.attach(first.info.session_id) as second:
            assert await first.wait() == 0
            await read_until(second, b"ready\n")
            await second.write_stdin(b"mine\n")
            await read_until(second, b"mine\n")
        await guest.sessions.kill(first.info.session_id)


async def test_sessions_are_listed_and_killed(guest: Guest) -> None:
    async with guest.sessions.open(piped("echo $$; exec sleep 1000")) as shell:
        pid = int(await read_until(shell, b"\n"))
    session_id = shell.info.session_id
    (info,) = [info for info in await guest.sessions.list() if info.session_id == session_id]
    assert (info.argv, info.running) == ("sh -c echo $$; exec sleep 1000", True)
    await guest.sessions.kill(session_id)
    await asyncio.to_thread(wait_until, lambda: not is_running(pid), "the session's process gone")


async def test_a_session_that_is_not_there_is_not_found(guest: Guest) -> None:
    with pytest.raises(NotFound):
        await guest.sessions.kill("s99999")
    with pytest.raises(NotFound):
        async with guest.sessions.attach("s99999"):
            pass


async def test_a_session_that_cannot_start_says_why(guest: Guest) -> None:
    with pytest.raises(StartFailed):
        async with guest.sessions.open(ExecRequest(argv=["/nonexistent"], session=True)):
            pass


@pytest.mark.parametrize("request_", [ExecRequest(argv=["sh"]), ExecRequest(session_id="s1", tty=True)])
async def test_only_sessions_are_opened_as_such(guest: Guest, request_: ExecRequest) -> None:
    with pytest.raises(InvalidInput):
        guest.sessions.open(request_)


async def test_who_comes_back_says_how_far_it_had_come_and_gets_nothing_twice(guest: Guest) -> None:
    wanted = ExecRequest(argv=["sh", "-c", "printf one; read line; printf $line; read line"], session=True)
    async with guest.sessions.open(wanted) as first:
        assert first.info.position == 0
        received = b""
        while received != b"one":
            received += (await anext(first)).data
        session_id = first.info.session_id
    async with guest.sessions.attach(session_id, after=3) as again:
        assert again.info.position == 3
        await again.write_stdin(b"two\n")
        assert (await anext(again)).data == b"two"
    async with guest.sessions.attach(session_id, after=1) as third:
        assert third.info.position == 1
        assert (await anext(third)).data == b"netwo"
    async with guest.sessions.attach(session_id, after=10**12) as ahead:
        assert ahead.info.position == 6
    assert [each.position for each in await guest.sessions.list() if each.session_id == session_id] == [None]
    await guest.sessions.kill(session_id)


async def test_a_position_that_is_no_longer_kept_is_told(guest: Guest) -> None:
    size = 200_000
    wanted = ExecRequest(argv=["sh", "-c", f"head -c {size} /dev/zero; read line"], session=True)
    async with guest.sessions.open(wanted) as first:
        received = 0
        while received < size:
            received += len((await anext(first)).data)
        session_id = first.info.session_id
    async with guest.sessions.attach(session_id, after=5) as again:
        assert again.info.position == size - 65_536
    await guest.sessions.kill(session_id)
