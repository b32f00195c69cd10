"""The agent's command line."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from hearth.agent.options import BadOption, parse, parse_address
from hearth.agent.patience import Patience

BOTH = ["--listen", "unix:/c", "--forward", "unix:/f"]


@pytest.mark.parametrize(
    ("text", "family", "address"),
    [
        ("unix:/a/b", socket.AF_UNIX, "/a/b"),
        ("unix:relative:colon", socket.AF_UNIX, "relative:colon"),
        ("tcp:0.0.0.0:1024", socket.AF_INET, ("0.0.0.0", 1024)),
        ("tcp:[::1]:80", socket.AF_INET6, ("::1", 80)),
    ],
)
def test_addresses_are_read(text: str, family: int, address: object) -> None:
    parsed = parse_address(text)
    assert (parsed.family, parsed.address) == (family, address)


@pytest.mark.parametrize(
    "text", ["", "unix:", "tcp:1", "tcp::1", "tcp:h:", "tcp:h:x", "tcp:h:65536", "udp:h:1", "unix:" + "x" * 108]
)
def test_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(BadOption):
        parse_address(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--listen is missing"),
        (BOTH[:2], "--forward is missing"),
        ([*BOTH, "--what", "1"], "unknown option --what"),
        ([*BOTH, "--token"], "--token needs a value"),
        ([*BOTH, "--token", "a", "--token-file", "/f"], "exclude each other"),
        ([*BOTH, "--token-file", "/no/such/file"], "No such file"),
        ([*BOTH, "--patience", "what=1"], "--patience what: no such time, there are auth_s, request_s"),
        ([*BOTH, "--patience", "auth_s"], "--patience auth_s: not a number of seconds above 0"),
        ([*BOTH, "--patience", "auth_s=0"], "not a number of seconds above 0"),
        ([*BOTH, "--patience", "auth_s=nan"], "not a number of seconds above 0"),
        ([*BOTH, "--patience", "auth_s=1e9"], "up to 86400"),
    ],
)
def test_bad_command_lines_say_what_is_wrong(arguments: list[str], words: str) -> None:
    with pytest.raises(BadOption, match=words):
        parse(arguments)


def test_only_the_times_that_are_named_change() -> None:
    assert parse(BOTH).patience == Patience()
    assert parse([*BOTH, "--patience", "body_s=1.5,auth_s=2"]).patience == Patience(body_s=1.5, auth_s=2.0)


def test_the_program_tells_its_usage_and_fails() -> None:
    done = subprocess.run([sys.executable, "-m", "hearth.agent", "--help"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"usage: python -m hearth.agent" in done.stderr


def test_an_address_in_use_is_told_without_a_traceback() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp:127.0.0.1:{taken.getsockname()[1]}"
        command = [sys.executable, "-m", "hearth.agent", "--listen", address, "--forward", address]
        done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"hearth: ")
    assert b"Traceback" not in done.stderr
