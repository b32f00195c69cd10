"""An agent locked into a directory, as a machine's is into the sandbox's root: no path leads out of it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.agent.client import AgentError, Client
from tests.agent.conftest import running_agent
from tests.agent.services.test_archives import archive, pull, push
from tests.agent.services.test_files import begin_write, read, write

from hearth.wire.frames import FrameType
from hearth.wire.messages import MoveRequest, PathRequest, RemoveRequest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="chroot(2) needs root"),
]
UPWARDS = "../" * 12


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a secret in it, and in that the root that the agent is locked into."""
    with tempfile.TemporaryDirectory(prefix="ha-") as directory:
        place = Path(directory)
        (place / "secret").write_text("outside")
        root = place / "root"
        (root / "links").mkdir(parents=True)
        (root / "inside").write_text("inside")
        (root / "links" / "up").symlink_to("../../secret")
        (root / "links" / "absolute").symlink_to(place / "secret")
        (root / "links" / "directory").symlink_to(UPWARDS)
        yield place


@pytest.fixture
def locked(place: Path) -> Iterator[Client]:
    with running_agent("--root", str(place / "root")) as agent:
        yield agent.client


@pytest.mark.parametrize(
    "path",
    [
        f"/{UPWARDS}secret",
        f"{UPWARDS}secret",
        "/links/up",
        "/links/absolute",
        "/links/directory/secret",
        "/proc/1/root",
    ],
)
def test_what_is_outside_is_not_there_to_be_read(locked: Client, path: str) -> None:
    with pytest.raises(AgentError, match=r"^not found: "):
        read(locked, path)
    with pytest.raises(AgentError, match=r"^not found: "):
        locked.ask(FrameType.FILE_STAT_REQ, PathRequest(path=path), FrameType.FILE_STAT_RESP)
    with pytest.raises(AgentError, match=r"^not found: "):
        pull(locked, Path(path))


def test_every_way_up_ends_at_the_root(locked: Client) -> None:
    for path in ("/", UPWARDS, "/links/directory", "."):
        names = locked.ask(FrameType.FILE_LS_REQ, PathRequest(path=path), FrameType.FILE_LS_RESP)
        assert [entry["name"] for entry in names] == ["inside", "links"]
    assert read(locked, f"{UPWARDS}inside")[1] == b"inside"


def test_what_is_written_moved_and_unpacked_upwards_lands_inside(locked: Client, place: Path) -> None:
    outside = _tree(place)
    write(locked, Path(f"/{UPWARDS}written"), b"1")
    write(locked, Path("/links/directory/linked"), b"2")
    push(locked, Path(f"/{UPWARDS}unpacked"), archive([("f", None, "")]))
    move = MoveRequest(path="/inside", to=f"{UPWARDS}moved")
    locked.ask(FrameType.FILE_MOVE_REQ, move, FrameType.FILE_MOVE_RESP)
    root = place / "root"
    found = [(root / name).read_text() for name in ("written", "linked", "unpacked/f", "moved")]
    assert found == ["1", "2", "f", "inside"]
    assert _tree(place) == outside


def test_removing_a_tree_of_links_outwards_removes_the_links_alone(locked: Client, place: Path) -> None:
    remove = RemoveRequest(path="/links", recursive=True)
    locked.ask(FrameType.FILE_REMOVE_REQ, remove, FrameType.FILE_REMOVE_RESP)
    assert sorted(path.name for path in (place / "root").iterdir()) == ["inside"]
    assert (place / "secret").read_text() == "outside"


def test_a_full_disk_is_told_before_the_body(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", tmp_path], check=True)
    try:
        with running_agent() as agent:
            text = r"^no space: .*/f: No space left on device"
            with begin_write(agent.client, tmp_path / "f", 5_000_000) as wire, pytest.raises(AgentError, match=text):
                wire.read()
            assert list(tmp_path.iterdir()) == []
            write(agent.client, tmp_path / "f", bytes(500_000))
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def _tree(place: Path) -> list[str]:
    """Name everything in the place that is not in the root."""
    return sorted(str(path) for path in place.rglob("*") if not path.is_relative_to(place / "root"))
