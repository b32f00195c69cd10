"""Terminals and piped sessions of the SDK over a connection that is cut, taken over, or gone."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.sdk.cut_proxy import CutProxy
from tests.server.daemon import RunningDaemon

from hearth.errors import Conflict, InvalidInput, NotFound, StartFailed, Unavailable
from hearth.sdk import AsyncClient, Client, Sandbox

WAIT_S = 60


@pytest.fixture
def proxy(daemon: RunningDaemon, tmp_path: Path) -> Iterator[CutProxy]:
    made = CutProxy(tmp_path / "s", daemon.data.api_socket)
    yield made
    made.close()


async def test_a_session_goes_on_over_a_cut_and_nothing_is_missing(
    daemon: RunningDaemon, shared: str, proxy: CutProxy
) -> None:
    async with (
        asyncio.timeout(WAIT_S),
        AsyncClient(f"unix:{proxy.path}", daemon.token) as client,
        client.sessions(shared).start(["cat"]) as session,
    ):
        output = aiter(session)
        for number in range(5):
            text = b"line %d\n" % number
            await session.send(text)
            got = b""
            while len(got) < len(text):
                got += await anext(output)
            assert got == text
            proxy.cut()
        await session.end_input()
        assert [data async for data in session] == []
        assert (session.exit_code, session.lost_bytes, session.position) == (0, 0, 35)


async def test_what_was_put_out_while_away_comes_and_what_was_too_much_is_counted(
    daemon: RunningDaemon, shared: str, proxy: CutProxy, tmp_path: Path
) -> None:
    waiting = f"while [ ! -e {tmp_path}/away ]; do sleep 0.02; done"
    script = f"read go; echo begun; {waiting}; head -c 300000 /dev/zero; touch {tmp_path}/done; read end"
    async with (
        asyncio.timeout(WAIT_S),
        AsyncClient(f"unix:{proxy.path}", daemon.token) as client,
        client.sessions(shared).start(["sh", "-c", script]) as session,
    ):
        await session.send("go\n")
        got = len(await anext(aiter(session)))
        proxy.cut(stay=True)
        (tmp_path / "away").touch()
        while not (tmp_path / "done").exists():
            await asyncio.sleep(0.01)
        proxy.mend()
        await session.send("end\n")
        got += sum([len(data) async for data in session])
        assert got + session.lost_bytes == session.position == 300_006
        assert 65_536 <= got < 300_006
        assert session.exit_code == 0


async def test_a_daemon_that_stays_away_is_told_after_a_while(
    daemon: RunningDaemon, shared: str, proxy: CutProxy
) -> None:
    async with (
        asyncio.timeout(WAIT_S),
        AsyncClient(f"unix:{proxy.path}", daemon.token) as client,
        client.sessions(shared).start(["cat"], linger_s=0.2) as session,
    ):
        proxy.cut(stay=True)
        with pytest.raises(Unavailable):
            [data async for data in session]
        with pytest.raises(Conflict):
            await session.send("x")
    async with AsyncClient(daemon.url, daemon.token) as client:
        await client.sessions(shared).kill(session.session_id)


def test_the_blocking_client_goes_on_over_a_cut_too(daemon: RunningDaemon, shared: str, proxy: CutProxy) -> None:
    with Client(f"unix:{proxy.path}", daemon.token) as client, client.sessions(shared).start(["cat"]) as session:
        output = iter(session)
        for number in range(5):
            text = b"line %d\n" % number
            session.send(text)
            got = b""
            while len(got) < len(text):
                got += next(output)
            assert got == text
            proxy.cut()
        session.end_input()
        assert (list(session), session.exit_code, session.lost_bytes) == ([], 0, 0)


def test_one_thread_reads_while_another_sends_over_a_cut(daemon: RunningDaemon, shared: str, proxy: CutProxy) -> None:
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    with Client(f"unix:{proxy.path}", daemon.token) as client, client.sessions(shared).start(["cat"]) as session:

        def read() -> None:
            for data in session:
                for line in data.split():
                    lines.put(line)

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(10):
            session.send(f"{number}\n")
            assert lines.get(timeout=WAIT_S) == b"%d" % number
            proxy.cut()
        session.end_input()
        reader.join(WAIT_S)
        assert (session.exit_code, lines.empty(), session.lost_bytes) == (0, True, 0)


def test_who_takes_a_session_over_sends_the_other_away(sandbox: Sandbox) -> None:
    with sandbox.sessions.start(["cat"]) as first:
        with pytest.raises(Conflict), sandbox.sessions.attach(first.session_id, if_detached=True):
            pass
        with sandbox.sessions.attach(first.session_id) as second:
            with pytest.raises(Conflict):
                list(first)
            second.end_input()
            assert (list(second), second.exit_code) == ([], 0)


def test_what_cannot_be_is_told_by_its_kind(sandbox: Sandbox, client: Client) -> None:
    with pytest.raises(NotFound), sandbox.sessions.attach("s999"):
        pass
    with pytest.raises(NotFound), client.sessions("nosuch").start(["true"]):
        pass
    with pytest.raises(NotFound), client.sessions("nosuch").terminal():
        pass
    with pytest.raises(StartFailed), sandbox.sessions.start(["/nonexistent"]):
        pass
    with pytest.raises(InvalidInput, match="cmd"), sandbox.sessions.start("ls -l"):
        pass
    with pytest.raises(InvalidInput, match="session"):
        sandbox.sessions.kill("..")
    with sandbox.sessions.start(["cat"]) as session:
        with pytest.raises(InvalidInput, match="size"):
            session.resize(0, 80)
        session.kill()


def test_a_lot_goes_through_unchanged(sandbox: Sandbox) -> None:
    data = bytes(range(256)) * 4000
    with sandbox.sessions.start(["head", "-c", str(len(data))]) as session:
        sender = threading.Thread(target=session.send, args=(data,))
        sender.start()
        got = b"".join(session)
        sender.join(WAIT_S)
        assert (got == data, session.exit_code) == (True, 0)
