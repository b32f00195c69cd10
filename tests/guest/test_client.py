from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import pytest
from tests.agent.conftest import AgentProcess, is_running, running_agent, wait_until
from tests.guest.conftest import guest_of
from tests.guest.peer import Caller, Peer, listening_peer

from hearth.errors import Conflict, GuestFailed, InvalidInput, StartFailed, TimedOut
from hearth.guest.client import Guest
from hearth.guest.dial import UnixDialer
from hearth.wire import frames
from hearth.wire.frames import FrameType
from hearth.wire.messages import ActivityInfo, ExecRequest, InitHealth, MachineConfig, Status, decode

ACTIVITY = ActivityInfo(last_activity_unix=1, active_sessions=0, attached_sessions=0)


def answers_activity(caller: Caller) -> None:
    caller.read()
    caller.reply(FrameType.ACTIVITY_RESP, ACTIVITY)


async def test_readiness_comes_soon_after_the_agent_does() -> None:
    with listening_peer() as peer:
        peer.serve(lambda caller: None)
        guest = Guest(peer.dialer, None)
        waiting = asyncio.create_task(guest.wait_ready(60))
        await asyncio.sleep(0.05)
        assert not waiting.done(), "a peer that accepts and closes is no agent"
        peer.serve(answers_activity)
        started = time.monotonic()
        await waiting
        assert time.monotonic() - started < 20, "it was asked again long before its time was over"


async def test_a_guest_that_never_comes_is_named_with_what_happened_last(tmp_path: Path) -> None:
    guest = Guest(UnixDialer(control=tmp_path / "c", forward=tmp_path / "f"), None)
    with pytest.raises(TimedOut, match=r"not become ready in 1 s: the guest cannot be reached.*No such file"):
        await guest.wait_ready(1.0)


async def test_a_guest_that_knows_another_token_is_named_so(agent_process: AgentProcess) -> None:
    with pytest.raises(GuestFailed, match="auth required"):
        await guest_of(agent_process, "wrong").wait_ready(1.0)


async def test_a_real_agent_is_ready(guest: Guest) -> None:
    await guest.wait_ready(60)


async def test_configuring_sends_the_identity_and_changes_the_token(peer: Peer) -> None:
    seen: list[frames.Frame] = []

    def script(caller: Caller) -> None:
        seen.append(frame := caller.read())
        if frame.type == FrameType.CONFIGURE:
            caller.reply(FrameType.CONFIGURED, Status(status="ok"))
        else:
            seen.extend([caller.read(), caller.read()])
            caller.reply(FrameType.ACTIVITY_RESP, ACTIVITY)

    peer.serve(script)
    guest = Guest(peer.dialer, None)
    config = MachineConfig(sandbox_id="sb-1", hostname="box", token="new", unix_time_ns=5, env={"A": "b"})
    await guest.configure(config, 60)
    await guest.activity()
    assert decode(MachineConfig, seen[0].payload) == config
    assert [seen[1], seen[3]] == [(FrameType.AUTH, b"new"), (FrameType.ACTIVITY_REQ, b"")]
    assert seen[2].type == FrameType.TIME_SYNC, "once more: reading the configuration took a while"


async def test_the_init_scripts_policy_and_health_check_are_sent_and_their_state_comes_back(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with running_agent() as agent:
        guest = guest_of(agent, None)
        config = MachineConfig(
            sandbox_id="sb-1",
            hostname="box",
            token="new",
            unix_time_ns=5,
            init=f"echo run >> {runs}; test $(wc -l < {runs}) -ge 2 || exit 1; exec sleep 1000",
            init_restart="on-failure",
            init_health=InitHealth(argv=["test", "-e", str(runs)], interval_sec=0.05, timeout_sec=5, retries=2),
        )
        await guest.configure(config, 60)
        async with asyncio.timeout(60):
            while not (sessions := await guest.sessions.list()) or not sessions[0].healthy:
                await asyncio.sleep(0.02)
        assert [(one.session_id, one.running, one.restarts) for one in sessions] == [("init", True, 1)]
        with pytest.raises(InvalidInput, match="init_restart is 'sometimes'"):
            await guest.configure(
                MachineConfig(sandbox_id="s", hostname="h", token="", unix_time_ns=5, init_restart="sometimes"), 5
            )


async def test_a_refused_configuration_leaves_the_token_as_it_was(peer: Peer) -> None:
    def script(caller: Caller) -> None:
        assert caller.read() == (FrameType.AUTH, b"old")
        if caller.read().type == FrameType.CONFIGURE:
            caller.send(frames.encode_error("conflict: the disk is busy"))
        else:
            caller.reply(FrameType.ACTIVITY_RESP, ACTIVITY)

    peer.serve(script)
    guest = Guest(peer.dialer, "old")
    with pytest.raises(Conflict, match="disk is busy"):
        await guest.configure(MachineConfig(sandbox_id="s", hostname="h", token="new", unix_time_ns=5), 5)
    assert await guest.activity() == ACTIVITY


@pytest.mark.parametrize(
    "request_",
    [
        ExecRequest(argv=["a"], tty=True),
        ExecRequest(argv=["a"], session=True),
        ExecRequest(argv=["a"], detach=True),
        ExecRequest(session_id="s1"),
    ],
)
async def test_only_plain_commands_are_started_plainly(guest: Guest, request_: ExecRequest) -> None:
    with pytest.raises(InvalidInput):
        guest.start(request_)
    with pytest.raises(InvalidInput):
        await guest.run(request_, timeout_s=1, max_output_bytes=1)


async def test_a_detached_command_outlives_its_request(guest: Guest, tmp_path: Path) -> None:
    output = tmp_path / "out"
    request = ExecRequest(argv=["sh", "-c", "echo hi; exec sleep 1000"], detach=True, output_file=str(output))
    started = await guest.start_detached(request)
    assert started.output_file == str(output)
    await asyncio.to_thread(wait_until, lambda: output.exists() and output.read_bytes() == b"hi\n", "the output")
    assert is_running(started.pid)
    await guest.run(ExecRequest(argv=["kill", "-KILL", str(started.pid)]), timeout_s=60, max_output_bytes=100)
    await asyncio.to_thread(wait_until, lambda: not is_running(started.pid), "the command gone")


async def test_a_detached_command_that_cannot_start_says_so(guest: Guest) -> None:
    with pytest.raises(StartFailed):
        await guest.start_detached(ExecRequest(argv=["/nonexistent"], detach=True))
    with pytest.raises(InvalidInput):
        await guest.start_detached(ExecRequest(argv=["true"]))


async def test_use_moves_the_time_of_last_activity(guest: Guest) -> None:
    before = int(time.time())
    await guest.run(ExecRequest(argv=["true"]), timeout_s=60, max_output_bytes=100)
    assert (await guest.activity()).last_activity_unix >= before


async def test_listening_ports_are_listed(guest: Guest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        (found,) = [info for info in await guest.ports() if info.port == port]
    assert found.address == "127.0.0.1"


async def test_disconnecting_ends_what_is_under_way_and_nothing_after(guest: Guest) -> None:
    running = asyncio.create_task(
        guest.run(ExecRequest(argv=["sleep", "1000"]), timeout_s=30, max_output_bytes=100), name="a long command"
    )
    async with guest.start(ExecRequest(argv=["cat"])) as execution:
        await execution.write_stdin(b"ready")
        await anext(execution)
        guest.disconnect()
        with pytest.raises(GuestFailed, match="gone"):
            await anext(execution)
    with pytest.raises(GuestFailed, match="gone"):
        await running
    assert (await guest.run(ExecRequest(argv=["true"]), timeout_s=60, max_output_bytes=10)).exit_code == 0
