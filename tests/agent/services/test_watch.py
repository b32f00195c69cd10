"""WATCH against real changes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.agent.client import AgentError, Client, Wire
from tests.agent.conftest import AgentProcess, wait_until

from hearth.wire.frames import FrameType
from hearth.wire.messages import WatchEvent, WatchRequest, decode

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")


def watch(client: Client, path: Path, *, recursive: bool = False) -> Wire:
    wire = client.connect()
    try:
        wire.request(FrameType.WATCH_REQ, WatchRequest(path=str(path), recursive=recursive))
        assert wire.expect(FrameType.WATCH_RESP) == b'{"status":"ok"}'
    except BaseException:
        wire.close()
        raise
    return wire


def read_until(wire: Wire, wanted: Callable[[WatchEvent], bool]) -> list[WatchEvent]:
    """Read changes up to and with the first one wanted."""
    events = [decode(WatchEvent, wire.expect(FrameType.WATCH_EVENT))]
    while not wanted(events[-1]):
        events.append(decode(WatchEvent, wire.expect(FrameType.WATCH_EVENT)))
    return events


def test_each_kind_of_change_is_told_with_its_path(client: Client, tmp_path: Path) -> None:
    with watch(client, tmp_path) as wire:
        (tmp_path / "f").write_text("x")
        (tmp_path / "f").rename(tmp_path / "g")
        (tmp_path / "g").unlink()
        (tmp_path / "d").mkdir()
        events = read_until(wire, lambda event: event.is_dir)
    kinds = [(event.kind, Path(event.path).name, event.to and Path(event.to).name) for event in events]
    assert [kind for kind in kinds if kind[0] != "modified"] == [
        ("created", "f", None),
        ("moved", "f", "g"),
        ("removed", "g", None),
        ("created", "d", None),
    ]
    assert ("modified", "f", None) in kinds
    assert events[0].path == str(tmp_path / "f")


def test_a_recursive_watch_sees_directories_made_later_and_renamed(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with watch(client, tmp_path, recursive=True) as wire:
        (tmp_path / "a" / "b" / "deep").touch()
        assert read_until(wire, lambda event: event.kind == "created")[-1].path == str(tmp_path / "a" / "b" / "deep")
        (tmp_path / "new" / "sub").mkdir(parents=True)
        (tmp_path / "new" / "sub" / "file").touch()
        read_until(wire, lambda event: event.path == str(tmp_path / "new" / "sub" / "file"))
        (tmp_path / "new").rename(tmp_path / "renamed")
        read_until(wire, lambda event: event.to == str(tmp_path / "renamed"))
        (tmp_path / "renamed" / "sub" / "later").touch()
        read_until(wire, lambda event: event.path == str(tmp_path / "renamed" / "sub" / "later"))


def test_a_watch_that_is_not_recursive_stays_at_its_level(client: Client, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with watch(client, tmp_path) as wire:
        (tmp_path / "d" / "inner").touch()
        (tmp_path / "outer").touch()
        events = read_until(wire, lambda event: event.path == str(tmp_path / "outer"))
    assert not any("inner" in event.path for event in events)


def test_the_watch_ends_with_what_it_watches(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "d").mkdir()
    with watch(client, tmp_path / "f") as file_watch, watch(client, tmp_path / "d") as directory_watch:
        (tmp_path / "f").write_text("x")
        (tmp_path / "f").unlink()
        shutil.rmtree(tmp_path / "d")
        for wire in (file_watch, directory_watch):
            events = []
            while (frame := wire.read_or_none()) is not None:
                events.append(decode(WatchEvent, frame.payload))
            assert events[-1].kind == "removed"


def test_a_flood_of_changes_is_told_as_overflow(client: Client, tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 20_000:
        pytest.skip("this system's event queue is too long to overflow in a test")
    with watch(client, tmp_path) as wire:
        descriptor = os.open(tmp_path / "f", os.O_WRONLY | os.O_CREAT)
        other = os.open(tmp_path / "g", os.O_WRONLY | os.O_CREAT)
        while not _readable(wire):
            os.write(descriptor, b"x")
        for _ in range(8 * limit):  # alternating, as equal neighbours are merged by the kernel
            os.write(descriptor, b"x")
            os.write(other, b"x")
        os.close(descriptor)
        os.close(other)
        assert read_until(wire, lambda event: event.kind == "overflow")[-1].path == str(tmp_path)


def test_a_missing_path_is_not_found_and_a_client_that_leaves_frees_the_watch(
    agent: AgentProcess, tmp_path: Path
) -> None:
    with pytest.raises(AgentError, match=r"^not found: "):
        watch(agent.client, tmp_path / "none")

    def watches() -> int:
        return sum(1 for path in Path(f"/proc/{agent.pid}/fd").iterdir() if is_watch(path))

    wait_until(lambda: watches() == 0, "those of earlier tests released")
    with watch(agent.client, tmp_path):
        assert watches() == 1
    wait_until(lambda: watches() == 0, "watch released")


def is_watch(path: Path) -> bool:
    try:
        return str(path.readlink()) == "anon_inode:inotify"
    except FileNotFoundError:
        return False


def _readable(wire: Wire) -> bool:
    wire.socket.setblocking(False)
    try:
        return bool(wire.socket.recv(1, 2))
    except BlockingIOError:
        return False
    finally:
        wire.socket.settimeout(60)
