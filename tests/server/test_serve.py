"""The daemon as a process: how it starts, refuses to start, and ends."""

from __future__ import annotations

import os
import pty
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.server.daemon import RunningDaemon, daemon_command, data_directory, running_daemon

from hearth.config import DataDirectory, Settings
from hearth.sdk.client import Client
from hearth.settings.loading import settings_of
from hearth.settings.options import read_words

END_S = 120


def refused(*words: str) -> str:
    """Run the server's process that is to end by itself with status 1, and give what it said."""
    command = [sys.executable, "-m", "hearth.server", *words]
    ended = subprocess.run(command, capture_output=True, timeout=END_S, text=True, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_a_second_daemon_on_the_same_data_says_who_is_there(daemon: RunningDaemon) -> None:
    ended = subprocess.run(daemon_command(daemon.data), capture_output=True, timeout=END_S, text=True, check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert str(daemon.process.pid) in ended.stderr
    assert "HEARTH_DATA" in ended.stderr
    with daemon.client() as client:
        assert client.health().status == "healthy"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--listen", "0.0.0.0:0"), "--allow-remote"),
        (("--listen", "8080"), "127.0.0.1:8080"),
        (("--data", "/proc/nope"), "/proc/nope"),
        (("--data", "/tmp/" + "x" * 120), "HEARTH_DATA"),
    ],
)
def test_a_daemon_that_cannot_start_says_why_and_what_to_do(words: tuple[str, ...], said: str) -> None:
    assert said in refused("serve", *words)


def settings(*words: str) -> Settings:
    return settings_of(read_words(words, {}).arguments)


def test_what_an_operator_does_not_choose_keeps_its_default() -> None:
    assert settings() == Settings()
    assert settings("--pool", "0").pool_ready == 0
    chosen = settings("--engine", "local", "--idle-pause", "0.5", "--idle-stop", "60", "--pool", "3", "--stop-on-exit")
    assert chosen == Settings(engine="local", idle_pause_s=0.5, idle_stop_s=60, pool_ready=3, stop_on_exit=True)


def test_an_operator_chooses_what_networks_do() -> None:
    chosen = settings("--net-default", "public", "--uplink", "netns:world", "--dns", "192.0.2.1", "--net-slots", "5")
    assert chosen == Settings(net_default="public", uplink="netns:world", dns_servers=("192.0.2.1",), network_slots=5)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("paint",),
        ("serve", "--colour"),
        ("serve", "--log-format", "xml"),
        ("serve", "--idle-pause", "0"),
        ("serve", "--idle-stop", "nan"),
        ("serve", "--idle-stop", "inf"),
        ("serve", "--pool", "-1"),
        ("serve", "--pool", "65"),
    ],
)
def test_wrong_arguments_end_with_2(words: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "hearth.server", *words]
    assert subprocess.run(command, capture_output=True, timeout=END_S, check=False).returncode == 2


def test_the_socket_is_private(daemon: RunningDaemon) -> None:
    assert stat.S_IMODE(daemon.data.api_socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(daemon.data.root.stat().st_mode) == 0o700


def test_it_says_where_it_listens_and_answers_there_over_tcp_too(daemon: RunningDaemon) -> None:
    (entry,) = [entry for entry in daemon.log() if entry["event"] == "listening"]
    tcp, unix = entry["addresses"]
    assert unix == f"unix:{daemon.data.api_socket}"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", tcp)
    with Client(tcp, daemon.token) as client:
        assert client.list() is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(number: signal.Signals) -> None:
    with data_directory() as data, running_daemon(data) as daemon:
        daemon.process.send_signal(number)
        assert daemon.process.wait(END_S) == 0
        assert not data.api_socket.exists()
        assert [entry["event"] for entry in daemon.log()][-1] == "stopped"


def test_it_leaves_the_directory_it_was_started_in_and_still_finds_its_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with data_directory() as data:
        monkeypatch.chdir(data.root.parent)
        with running_daemon(data, "--data", data.root.name) as daemon, daemon.client() as client:
            assert client.health().status == "healthy"
            assert Path(f"/proc/{daemon.process.pid}/cwd").readlink() == Path("/")
            assert data.api_socket.is_socket()


def test_after_a_crash_the_next_daemon_takes_over_the_socket() -> None:
    with data_directory() as data:
        with running_daemon(data) as crashed:
            crashed.process.kill()
            crashed.process.wait(END_S)
            assert data.api_socket.exists()
        with running_daemon(data) as daemon, daemon.client() as client:
            assert client.health().status == "healthy"


def until_listening(data: DataDirectory, *, pause_s: float = 0.02) -> None:
    deadline = time.monotonic() + END_S
    while not data.api_socket.exists():
        assert time.monotonic() < deadline, "the daemon does not listen"
        time.sleep(pause_s)


def test_who_sees_its_socket_may_end_it() -> None:
    with data_directory() as data:
        with subprocess.Popen(daemon_command(data), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            until_listening(data, pause_s=0.001)
            process.send_signal(signal.SIGTERM)
            assert process.wait(END_S) == 0
        assert not data.api_socket.exists()


def test_a_daemon_at_a_terminal_ends_with_it() -> None:
    with data_directory() as data:
        terminal, ours = pty.openpty()
        try:
            with subprocess.Popen(daemon_command(data), stdin=subprocess.DEVNULL, stderr=ours) as process:
                until_listening(data)
                process.send_signal(signal.SIGHUP)
                assert process.wait(END_S) == 0
        finally:
            os.close(terminal)
            os.close(ours)
