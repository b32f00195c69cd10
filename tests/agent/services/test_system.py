"""CONFIGURE, ACTIVITY and POWER_OFF in test mode, where they must leave the host alone."""

from __future__ import annotations

import base64
import socket
import stat
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from tests.agent.client import AgentError, Client, Result
from tests.agent.conftest import running_agent, wait_until
from tests.agent.services.test_sessions import kill, listed

from hearth.wire.frames import FrameType
from hearth.wire.messages import ActivityInfo, ExecRequest, FileContent, InitHealth, MachineConfig, decode

TEST_MODE = pytest.mark.usefixtures("in_test_mode")


def config(**fields: Any) -> MachineConfig:
    usual: dict[str, Any] = {
        "sandbox_id": "sb-1",
        "hostname": "changed",
        "token": "",
        "unix_time_ns": 1,
        "entropy": "AAAA",
    }
    return MachineConfig(**usual | fields)


def configure(client: Client, **fields: Any) -> None:
    reply = client.ask(FrameType.CONFIGURE, config(**fields), FrameType.CONFIGURED)
    assert reply == {"status": "ok"}


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def activity(client: Client) -> ActivityInfo:
    with client.connect() as wire:
        wire.send(FrameType.ACTIVITY_REQ)
        return decode(ActivityInfo, wire.expect(FrameType.ACTIVITY_RESP))


def test_environment_and_token_come_with_the_configuration_and_change_with_the_next() -> None:
    with running_agent() as agent:
        client = agent.client
        configure(client, token="first", env={"A": "1", "B": "2"})
        with pytest.raises(AgentError, match=r"^auth required$"):
            client.run("true")
        client.token = "first"
        result = client.run("sh", "-c", "echo $A$B", env={"B": "3"})
        assert result.stdout == b"13\n"
        configure(client, token="second")
        with pytest.raises(AgentError, match=r"^auth required$"):
            configure(client, token="third")
        client.token = "second"
        assert client.run("sh", "-c", "echo $A$B").stdout == b"\n"


@TEST_MODE
def test_files_are_put_in_place_with_their_modes(client: Client, tmp_path: Path) -> None:
    secret, plain = tmp_path / "d" / "secret", tmp_path / "plain"
    plain.symlink_to("/no/where")
    content = base64.b64encode(b"\0binary").decode()
    configure(
        client, files={str(secret): FileContent(content=content, mode="0600"), str(plain): FileContent(content="")}
    )
    assert secret.read_bytes() == b"\0binary"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert plain.read_bytes() == b""
    assert not plain.is_symlink()


@TEST_MODE
def test_a_configuration_with_a_bad_file_changes_nothing(client: Client, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    files = {str(good): FileContent(content="AAAA"), str(bad): FileContent(content="not base64!")}
    with pytest.raises(AgentError, match=r"^invalid: content of .*bad"):
        configure(client, token="never", files=files)
    assert not good.exists()
    assert client.run("true").exit_code == 0


@TEST_MODE
def test_the_host_keeps_its_clock_and_name(client: Client) -> None:
    name, now = socket.gethostname(), time.time()
    configure(client, hostname="other-name", unix_time_ns=5_000_000_000)
    assert socket.gethostname() == name
    assert abs(time.time() - now) < 60


@TEST_MODE
def test_a_machine_of_no_agent_is_not_switched_off(client: Client) -> None:
    with pytest.raises(AgentError, match=r"^denied: "):
        client.ask(FrameType.POWER_OFF_REQ, None, FrameType.POWER_OFF_RESP)


def test_the_init_script_is_a_session_that_starts_once_and_keeps_its_exit() -> None:
    with running_agent() as agent:
        configure(agent.client, init="echo from init; exit 3", env={"A": "1"})
        wait_until(lambda: listed(agent.client)["init"].exit_code == 3, "init script over")
        configure(agent.client, init="echo again")
        wire, info = agent.client.attach("init")
        with wire:
            assert Result(wire).stdout == b"from init\n"
        assert info.exit_code == 3


def test_a_failing_init_script_is_started_again_and_a_successful_one_is_not() -> None:
    script = "echo run >> runs; test $(wc -l < runs) -ge 3"
    with running_agent() as agent, tempfile.TemporaryDirectory() as directory:
        configure(agent.client, init=f"cd {directory}; {script}", init_restart="on-failure")
        wait_until(lambda: listed(agent.client)["init"].exit_code == 0, "third run over")
        assert listed(agent.client)["init"].restarts == 2
        assert (Path(directory) / "runs").read_text() == "run\n" * 3


def test_an_unwell_init_script_is_killed_and_started_again() -> None:
    with running_agent() as agent, tempfile.TemporaryDirectory() as directory:
        well = Path(directory) / "well"
        well.touch()
        health = InitHealth(argv=["test", "-e", str(well)], interval_sec=0.05, retries=2)
        configure(agent.client, init="sleep 1000", init_restart="always", init_health=health)
        wait_until(lambda: listed(agent.client)["init"].healthy is True, "found well")
        assert listed(agent.client)["init"].restarts == 0
        well.unlink()
        wait_until(lambda: (listed(agent.client)["init"].restarts or 0) > 0, "started again")
        well.touch()
        wait_until(lambda: listed(agent.client)["init"].healthy is True, "well again")
    assert b"is not well and is killed" in agent.said


def test_a_check_that_hangs_counts_as_failed_and_tells_without_a_policy_only() -> None:
    with running_agent() as agent:
        health = InitHealth(argv=["sleep", "1000"], interval_sec=0.05, timeout_sec=0.05, retries=1)
        configure(agent.client, init="sleep 1000", init_health=health)
        wait_until(lambda: listed(agent.client)["init"].healthy is False, "found unwell")
        assert listed(agent.client)["init"].running


@pytest.mark.parametrize(
    "fields",
    [
        {"init_restart": "sometimes"},
        {"init_health": InitHealth(argv=[])},
        {"init_health": InitHealth(argv=["true"], retries=0)},
        {"init_health": InitHealth(argv=["true"], interval_sec=0)},
        {"init_health": InitHealth(argv=["true"], timeout_sec=1e300)},
    ],
    ids=str,
)
def test_a_senseless_policy_is_refused_and_nothing_starts(fields: dict[str, Any]) -> None:
    with running_agent() as agent:
        with pytest.raises(AgentError, match=r"^invalid: init_"):
            configure(agent.client, init="true", **fields)
        assert listed(agent.client) == {}


def test_a_missing_shell_for_the_init_script_does_not_fail_the_configuration() -> None:
    with running_agent() as agent:
        configure(agent.client, user="no-such-user", init="true")
        assert agent.client.run("true").exit_code == 0


def test_activity_counts_sessions_and_moves_on_use(client: Client) -> None:
    before = activity(client)
    wire, info = client.session("cat")
    with wire:
        during = activity(client)
        assert during.active_sessions == before.active_sessions + 1
        assert during.attached_sessions == before.attached_sessions + 1
    wait_until(lambda: not listed(client)[info.session_id].attached, "detached")
    assert activity(client).attached_sessions == before.attached_sessions
    ended = int(time.time())
    kill(client, info.session_id)
    assert ended <= activity(client).last_activity_unix <= time.time()


@pytest.mark.slow
def test_asking_is_not_activity_but_a_silent_job_without_a_client_is() -> None:
    with running_agent() as agent:
        started = activity(agent.client).last_activity_unix
        wait_until(lambda: int(time.time()) > started + 1, "time passed")
        assert activity(agent.client).last_activity_unix == started
        with agent.client.start(ExecRequest(argv=["sleep", "100"], detach=True)) as wire:
            list(wire.frames())
        begun = int(time.time())
        wait_until(lambda: int(time.time()) > begun, "time passed")
        assert activity(agent.client).last_activity_unix > begun


@pytest.mark.slow
def test_a_silent_session_at_work_is_activity_and_an_idle_one_is_not() -> None:
    with running_agent() as agent:
        wire, info = agent.client.session("sh", "-c", "echo $$; read x; while :; do :; done")
        with wire:
            pid = int(wire.read_until(lambda data: data.endswith(b"\n")))
            wait_until(lambda: state_of(pid) == "S", "the shell reads: to start was work")
            activity(agent.client)
            idle_since = activity(agent.client).last_activity_unix
            wait_until(lambda: int(time.time()) > idle_since + 1, "time passed")
            assert activity(agent.client).last_activity_unix == idle_since
            wire.send(FrameType.STDIN, b"\n")
            begun = int(time.time())
            # Again and again: a machine that has no time for the shell sees no work of its either.
            wait_until(lambda: activity(agent.client).last_activity_unix > begun, "its work is seen")
        kill(agent.client, info.session_id)
