"""`hearth file` as its user meets it: a real process, a real daemon, files of a bare agent."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.cli.test_main import run
from tests.server.daemon import RunningDaemon, run_cli

from hearth.cli.commands.file import read_part
from hearth.cli.copying import Place, read_place
from hearth.cli.progress import line_of
from hearth.errors import InvalidInput
from hearth.sdk.client import Sandbox

BINARY = bytes(range(256)) * 5000


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A directory that the bare agent and the test see alike."""
    made = tmp_path / "room"
    made.mkdir()
    return made


def test_bytes_go_in_and_out_as_they_are(daemon: RunningDaemon, sandbox: Sandbox, room: Path) -> None:
    path = str(room / "deep" / "data")
    done = run_cli(daemon.environment, "file", "write", "--mode", "0640", "shared", path, stdin=BINARY)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert Path(path).read_bytes() == BINARY
    assert Path(path).stat().st_mode & 0o777 == 0o640
    done = run_cli(daemon.environment, "file", "read", "shared", path)
    assert (done.returncode, done.stdout, done.stderr) == (0, BINARY, b"")


def test_parts_are_read_by_lines_and_bytes(daemon: RunningDaemon, sandbox: Sandbox, room: Path) -> None:
    (room / "poem").write_text("one\ntwo\nthree\n")
    path = str(room / "poem")
    assert run(daemon, "file", "read", "shared", path, "--lines", "2:1") == (0, "two\n", "")
    assert run(daemon, "file", "read", "shared", path, "--bytes", "4") == (0, "two\nthree\n", "")
    document = json.loads(run(daemon, "file", "read", "--json", "shared", path)[1])
    assert (document["content"], document["encoding"]) == ("one\ntwo\nthree\n", "utf-8")


def test_a_directory_is_listed_and_shown(daemon: RunningDaemon, sandbox: Sandbox, room: Path) -> None:
    (room / "sub").mkdir()
    (room / "b\x1b[31m").write_text("x")
    status, out, _ = run(daemon, "file", "ls", "shared", str(room))
    assert status == 0
    assert [line.split()[-1] for line in out.splitlines()] == ["NAME", "b\\x1b[31m", "sub/"]
    listed = json.loads(run(daemon, "file", "ls", "--json", "shared", str(room))[1])
    assert [(entry["name"], entry["is_dir"]) for entry in listed["items"]] == [("b\x1b[31m", False), ("sub", True)]
    shown = json.loads(run(daemon, "file", "stat", "--json", "shared", str(room))[1])
    assert shown["is_dir"] is True
    status, _, err = run(daemon, "file", "stat", "shared", str(room / "none"))
    assert (status, "none" in err) == (1, True)


def test_a_tree_is_copied_there_and_back(daemon: RunningDaemon, sandbox: Sandbox, room: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "inner").mkdir(parents=True)
    (tree / "inner" / "tool").write_bytes(b"#!/bin/sh\n")
    (tree / "inner" / "tool").chmod(0o755)
    (tree / "link").symlink_to("inner/tool")
    os.mkfifo(tree / "fifo")
    status, _, err = run(daemon, "file", "cp", str(tree), f"shared:{room}")
    assert (status, "--recursive" in err) == (1, True)
    status, out, err = run(daemon, "file", "cp", "-r", str(tree), f"shared:{room}")
    assert (status, out, "fifo" in err) == (0, "", True)
    assert (room / "tree" / "inner" / "tool").stat().st_mode & 0o777 == 0o755
    back = tmp_path / "back"
    done = run(daemon, "file", "cp", "-r", "--json", f"shared:{room}/tree", str(back))
    assert (done[0], json.loads(done[1])["skipped"]) == (0, [])
    assert (back / "inner" / "tool").read_bytes() == b"#!/bin/sh\n"
    assert (back / "link").readlink() == Path("inner/tool")


def test_a_single_file_is_copied_by_every_way(
    daemon: RunningDaemon, sandbox: Sandbox, room: Path, tmp_path: Path
) -> None:
    (tmp_path / "here").write_bytes(BINARY)
    assert run(daemon, "file", "cp", str(tmp_path / "here"), f"shared:{room}/there") == (0, "", "")
    assert run(daemon, "file", "cp", f"shared:{room}/there", f"shared:{room}/elsewhere") == (0, "", "")
    assert run(daemon, "file", "cp", f"shared:{room}/elsewhere", str(tmp_path) + "/") == (0, "", "")
    assert (tmp_path / "elsewhere").read_bytes() == BINARY
    done = run_cli(daemon.environment, "file", "cp", "-", f"shared:{room}/piped", stdin=BINARY)
    assert done.returncode == 0
    done = run_cli(daemon.environment, "file", "cp", f"shared:{room}/piped", "-")
    assert (done.returncode, done.stdout) == (0, BINARY)


def test_deleting_without_a_terminal_needs_yes(daemon: RunningDaemon, sandbox: Sandbox, room: Path) -> None:
    (room / "a").write_text("")
    status, out, err = run(daemon, "file", "rm", "shared", str(room / "a"))
    assert (status, out, "--yes" in err) == (1, "", True)
    status, out, err = run(daemon, "file", "rm", "-y", "shared", str(room / "none"), str(room / "a"))
    assert (status, out, "none" in err) == (1, f"{room}/a\n", True)
    assert not (room / "a").exists()


def test_without_an_action_the_next_step_is_told(daemon: RunningDaemon) -> None:
    status, out, err = run(daemon, "file")
    assert (status, out, "--help" in err) == (2, "", True)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("web:/tmp/a:b", Place(sandbox="web", path="/tmp/a:b")),
        ("./web:/tmp", Place(path="./web:/tmp")),
        ("plain", Place(path="plain")),
        ("-", Place(path="-")),
        (":/a", Place(path=":/a")),
    ],
)
def test_places_are_read(text: str, place: Place) -> None:
    assert read_place(text, what="SOURCE") == place
    assert place.is_stdio is (text == "-")


@pytest.mark.parametrize("text", ["", "web:", "web:tmp"])
def test_what_names_no_place_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_place(text, what="SOURCE")


@pytest.mark.parametrize(("text", "part"), [("10", (10, None)), ("0:5", (0, 5))])
def test_parts_are_read(text: str, part: tuple[int, int | None]) -> None:
    assert read_part(text, what="--lines") == part


@pytest.mark.parametrize("text", ["", "a", "1:", ":1", "-1", "1:b"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_part(text, what="--lines")


def test_progress_is_told_in_a_line() -> None:
    assert line_of("a → b", 512, 1024, elapsed_s=1) == "a → b  ██████████░░░░░░░░░░  50%  512 B of 1.0 KiB  512 B/s"
    assert line_of("a → b", 2048, None, elapsed_s=2) == "a → b  2.0 KiB  1.0 KiB/s"
    assert line_of("a → b", 0, None, elapsed_s=0) == "a → b  0 B"
