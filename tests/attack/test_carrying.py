"""The prober as it goes into a guest: read from its input alone, by any Python 3, and what it says taken with care."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hearth.attack.carrying import COMMAND, given, printable, read_line, read_outcome
from hearth.attack.model import Expect, Outcome, Probe

RUN = "0123abcd"
LIMIT_S = 120


def probe(identity: str, do: str, how: dict[str, Any]) -> Probe:
    return Probe(id=identity, group="g", target="t", tried="x", expect=Expect.DENIED, do=do, how=how)


def carried(directory: Path, *probes: Probe) -> dict[str, Outcome]:
    """Run the prober as a guest does: without hearth on its path, in a directory of its own."""
    command = [sys.executable, *COMMAND[1:]]
    stdin = given(RUN, probes, 60)
    done = subprocess.run(
        command, input=stdin, capture_output=True, cwd=directory, env={}, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    lines = [read_line(line) for line in done.stdout.splitlines()]
    assert lines[-1] == {"done": len(probes)}
    return dict(found for line in lines if line is not None and (found := read_outcome(line)) is not None)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def closed_port() -> Iterator[int]:
    """One that refuses, and that nobody else is given meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_it_runs_from_its_input_alone_and_tells_open_from_closed(
    tmp_path: Path, listener: socket.socket, closed_port: int
) -> None:
    port = listener.getsockname()[1]
    said = carried(
        tmp_path,
        probe("open", "dial", {"address": "127.0.0.1", "port": port}),
        probe("closed", "dial", {"address": "127.0.0.1", "port": closed_port}),
        probe("datagram", "dial", {"address": "127.0.0.1", "port": closed_port, "protocol": "udp"}),
        probe("scan", "scan", {"address": "127.0.0.1", "first": port, "last": port}),
        probe("nonsense", "no such action", {}),
        probe("agent", "speak to agent", {"addresses": ["127.0.0.1"], "port": closed_port}),
    )
    words = {name: outcome.word for name, outcome in said.items()}
    assert words == {
        "open": "open",
        "closed": "refused",
        "datagram": "refused",
        "scan": "scanned",
        "nonsense": "could not",
        "agent": "nobody there",
    }
    assert said["scan"].ports == (port,)
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b"7", b"[" * 100_000, b"\xff\xfe"])
def test_lines_that_are_no_object_are_passed_over(line: bytes) -> None:
    assert read_line(line) is None


@pytest.mark.parametrize(
    "line", [{}, {"probe": "p"}, {"probe": 7, "outcome": "open"}, {"probe": "p", "outcome": ["open"]}]
)
def test_what_is_no_outcome_is_none(line: dict[str, Any]) -> None:
    assert read_outcome(line) is None


def test_a_guests_words_are_cut_and_made_harmless() -> None:
    line = json.dumps(
        {"probe": "p", "outcome": "o" * 1000, "detail": "\x1b[2J" + "d" * 9999, "open": ["x"], "sent": True}
    )
    read = read_line(line.encode())
    assert read is not None
    found = read_outcome(read)
    assert found is not None
    assert found[1] == Outcome(word="o" * 40, detail="?[2J" + "d" * 196)
    assert printable("a\nb\x07\u202e") == "a?b??"
