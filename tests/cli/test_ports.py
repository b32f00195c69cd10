"""`hearth ports`, `publish` and `forward`, as a user runs them."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys

import pytest
from tests.server.daemon import RunningDaemon, run_cli
from tests.server.proxy.stage import answering, read_rest, serving, sized

from hearth.cli.commands.forward import Mapping, read_mapping
from hearth.errors import InvalidInput
from hearth.sdk.client import Sandbox


def test_a_port_is_listed_published_and_taken_back(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    with serving(answering(sized(b""))) as server:
        port = str(server.port)
        made = run_cli(daemon.environment, "publish", sandbox.name, "-p", port, "-a", "cli-shop")
        assert (made.returncode, made.stdout) == (0, b"/p/cli-shop/\n")
        listed = run_cli(daemon.environment, "ports", sandbox.name)
        assert any(line.split()[1:3] == [port, "127.0.0.1"] for line in listed.stdout.decode().splitlines())
        assert b"/p/cli-shop/" in listed.stdout
        every = json.loads(run_cli(daemon.environment, "ports", "--json").stdout)
        assert server.port in [each["port"] for each in every["items"]]
        (shown,) = json.loads(run_cli(daemon.environment, "publish", sandbox.name, "--json").stdout)
        assert (shown["alias"], shown["port"]) == ("cli-shop", server.port)
        every = run_cli(daemon.environment, "publish", "--list").stdout.decode().splitlines()
        assert [sandbox.name, "admin", port, "cli-shop", "/p/cli-shop/"] in [line.split()[:5] for line in every]
        for words in (["-p", port], ["--list", sandbox.name, "-p", port], [sandbox.name, "--remove"]):
            assert run_cli(daemon.environment, "publish", *words).returncode == 1
        gone = run_cli(daemon.environment, "publish", sandbox.name, "-p", port, "--remove")
        assert (gone.returncode, gone.stdout) == (0, b"")
        again = run_cli(daemon.environment, "publish", sandbox.name, "-p", port, "--remove")
        assert again.returncode == 1
        assert b"no such publication" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_forward_tells_where_carries_on_and_ends_cleanly(
    daemon: RunningDaemon, sandbox: Sandbox, number: signal.Signals
) -> None:
    with serving(answering(sized(b"hello"))) as server:
        argv = [sys.executable, "-m", "hearth.cli", "forward", sandbox.name, f"0:{server.port}", f"0:{server.port}"]
        with subprocess.Popen(
            argv, env=daemon.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                assert process.stdout is not None
                for _ in range(2):
                    address, arrow, target = process.stdout.readline().decode().split()
                    assert (arrow, target) == ("->", f"{sandbox.name}:{server.port}")
                    host, _, port = address.rpartition(":")
                    assert host == "127.0.0.1"
                    with socket.create_connection((host, int(port)), 20) as connection:
                        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                        connection.shutdown(socket.SHUT_WR)
                        assert read_rest(connection).endswith(b"hello")
                process.send_signal(number)
                assert process.wait(60) == 0
                assert process.stderr is not None
                assert process.stderr.read() == b""
            finally:
                process.kill()


def test_a_wrong_name_is_told_at_once(daemon: RunningDaemon) -> None:
    ended = run_cli(daemon.environment, "forward", "nosuch", "0:80")
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert b"no such sandbox" in ended.stderr


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        ("8080:3000", Mapping(local=8080, remote=3000)),
        ("3000", Mapping(local=3000, remote=3000)),
        ("0:80", Mapping(local=0, remote=80)),
    ],
)
def test_mappings_are_read(text: str, mapping: Mapping) -> None:
    assert read_mapping(text) == mapping


@pytest.mark.parametrize("text", ["", ":", "80:", ":80", "80:0", "0", "1:65536", "65536:1", "a:b", "1:2:3", "-1:80"])
def test_what_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="ports"):
        read_mapping(text)
