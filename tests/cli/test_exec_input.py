"""Input of `hearth exec` through pipes: of any length, as it comes, and nobody waits for more of it than is wanted."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.server.daemon import RunningDaemon, run_cli

from hearth.cli.exec_input import HEAD_BYTES, read_head
from hearth.sdk.client import Client, Sandbox

WAIT_S = 60.0
LARGE = os.urandom(1024) * 5000
"""Several requests' worth."""


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_input_of_any_length_arrives_whole(daemon: RunningDaemon, sandbox: Sandbox, tmp_path: Path, kind: str) -> None:
    words = ("exec", "shared", "--", "sha256sum")
    expected = hashlib.sha256(LARGE).hexdigest().encode()
    if kind == "pipe":
        assert run_cli(daemon.environment, *words, stdin=LARGE).stdout.split()[0] == expected
        return
    (tmp_path / "large").write_bytes(LARGE)
    with (tmp_path / "large").open("rb") as file:
        command = [sys.executable, "-m", "hearth.cli", *words]
        ended = subprocess.run(
            command, env=daemon.environment, stdin=file, capture_output=True, timeout=WAIT_S, check=False
        )
    assert ended.stdout.split()[0] == expected


def test_input_arrives_as_it_comes(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    command = [sys.executable, "-m", "hearth.cli", "exec", "shared", "--", "sh", "-c"]
    command.append('while read -r line; do echo "got $line"; done; exit 9')
    with subprocess.Popen(command, env=daemon.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None and running.stdout is not None
        for word in (b"one", b"two"):
            running.stdin.write(word + b"\n")
            running.stdin.flush()
            assert running.stdout.readline() == b"got " + word + b"\n"
        running.stdin.close()
        assert running.wait(WAIT_S) == 9


def test_a_command_does_not_wait_for_input_that_it_does_not_want(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    silent, held = os.pipe()
    try:
        command = [sys.executable, "-m", "hearth.cli", "exec", "shared", "--", "echo", "done"]
        ended = subprocess.run(
            command, env=daemon.environment, stdin=silent, capture_output=True, timeout=WAIT_S, check=False
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"done\n", b"")
    finally:
        os.close(silent)
        os.close(held)


def test_a_command_that_ends_early_ends_the_pipe(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    words = ("exec", "shared", "--", "sh", "-c", "head -c 3; exit 4")
    ended = run_cli(daemon.environment, *words, stdin=b"abc" + LARGE * 4)
    assert (ended.returncode, ended.stdout, ended.stderr) == (4, b"abc", b"")


def test_long_input_goes_with_json_and_into_what_is_detached(
    daemon: RunningDaemon, sandbox: Sandbox, client: Client
) -> None:
    told = json.loads(run_cli(daemon.environment, "exec", "--json", "shared", "--", "wc", "-c", stdin=LARGE).stdout)
    assert told == {"exit_code": 0, "stdout": f"{len(LARGE)}\n", "stderr": "", "truncated": False}
    started = run_cli(daemon.environment, "exec", "--detach", "shared", "--", "wc", "-c", stdin=LARGE)
    with client.commands.logs(started.stdout.decode().strip()) as running:
        assert b"".join(output.data for output in running).split() == [str(len(LARGE)).encode()]


def test_the_beginning_of_an_input_is_what_is_there_at_once() -> None:
    reading, writing = os.pipe()
    try:
        assert (head := read_head(reading)).data == b"" and not head.is_whole
        os.write(writing, b"some")
        assert (head := read_head(reading)).data == b"some" and not head.is_whole
        os.write(writing, b"last")
        os.close(writing)
        assert (head := read_head(reading)).data == b"last" and head.is_whole
    finally:
        os.close(reading)
    with Path(__file__).open("rb") as file:
        assert read_head(file.fileno()).is_whole
    with Path("/dev/zero").open("rb") as endless:
        assert read_head(endless.fileno()).data is None
    assert HEAD_BYTES * 4 / 3 < 1_048_576, "it fits into a body in base64"
