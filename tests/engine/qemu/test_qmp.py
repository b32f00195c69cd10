"""The monitor client against a real QEMU that runs no machine."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from hearth.engine.qemu.qmp import Qmp, QmpClosed, QmpRefused
from hearth.errors import TimedOut


@pytest.fixture
def vmm(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    path = tmp_path / "qmp.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        monitor = f"socket,id=qmp,fd={listener.fileno()},server=on,wait=off"
        process = subprocess.Popen(
            [
                "qemu-system-x86_64",
                "-M",
                "none",
                "-nodefaults",
                "-display",
                "none",
                "-S",
                "-chardev",
                monitor,
                "-mon",
                "chardev=qmp,mode=control",
            ],
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
        )
    try:
        yield process, path
    finally:
        process.kill()
        process.wait()


def connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    connection.setblocking(False)
    return connection


@pytest.fixture
async def monitor(vmm: tuple[subprocess.Popen[bytes], Path]) -> AsyncIterator[Qmp]:
    client = await Qmp.open(connected(vmm[1]))
    try:
        yield client
    finally:
        await client.close()


async def test_a_command_returns_what_qemu_answers(monitor: Qmp) -> None:
    assert (await monitor.execute("query-status"))["running"] is False


async def test_several_commands_are_answered_in_the_order_they_were_sent(monitor: Qmp) -> None:
    before, _, after = await monitor.execute_all([("query-status", None), ("cont", None), ("query-status", None)])

    assert (before["running"], after["running"]) == (False, True)


async def test_a_refused_command_raises_with_qemus_words_and_the_monitor_goes_on(monitor: Qmp) -> None:
    with pytest.raises(QmpRefused) as caught:
        await monitor.execute("no-such-command")

    assert "no-such-command" in caught.value.details
    assert await monitor.execute("query-name") == {}


async def test_an_event_awaited_before_its_cause_is_delivered(monitor: Qmp) -> None:
    resumed = monitor.expect("RESUME")
    await monitor.execute("cont")

    async with asyncio.timeout(60):
        assert await resumed == {}


async def test_many_tasks_get_their_own_answers(monitor: Qmp) -> None:
    commands = ["query-status", "query-version", "query-name"] * 20
    answers = await asyncio.gather(*(monitor.execute(command) for command in commands))

    assert all(
        ("running" in answer) == (command == "query-status") for command, answer in zip(commands, answers, strict=True)
    )


async def test_a_vmm_that_ends_wakes_everybody_who_waits(
    vmm: tuple[subprocess.Popen[bytes], Path], monitor: Qmp
) -> None:
    never = monitor.expect("RESUME")
    vmm[0].kill()

    with pytest.raises(QmpClosed):
        await never
    with pytest.raises(QmpClosed):
        await monitor.execute("query-status")
    with pytest.raises(QmpClosed):
        await monitor.expect("STOP")


async def test_a_vmm_that_is_stopped_times_out_and_a_late_answer_disturbs_nobody(
    vmm: tuple[subprocess.Popen[bytes], Path], monitor: Qmp
) -> None:
    os.kill(vmm[0].pid, signal.SIGSTOP)
    with pytest.raises(TimedOut) as caught:
        await monitor.execute("query-version", timeout_s=0.1)
    os.kill(vmm[0].pid, signal.SIGCONT)

    assert "query-version" in caught.value.details
    assert "running" in await monitor.execute("query-status")


async def test_a_silent_peer_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        with pytest.raises(TimedOut):
            await Qmp.open(connected(path), timeout_s=0.1)


async def test_a_peer_that_speaks_garbage_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    path = tmp_path / "garbage.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        client = connected(path)
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"this is no JSON\n")
            with pytest.raises(QmpClosed):
                await Qmp.open(client, timeout_s=5)
