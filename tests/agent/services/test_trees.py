"""Requests that arrange files and trees: make, remove, move, change modes."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.agent.client import AgentError, Client

from hearth.wire.frames import FrameType
from hearth.wire.messages import ChangeModeRequest, MakeDirectoryRequest, MoveRequest, RemoveRequest

OK = {"status": "ok"}


def test_directories_are_made_with_parents_and_twice(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    for _ in range(2):
        request = MakeDirectoryRequest(path=str(path), mode="0700")
        assert client.ask(FrameType.FILE_MKDIR_REQ, request, FrameType.FILE_MKDIR_RESP) == OK
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    (tmp_path / "f").touch()
    with pytest.raises(AgentError, match=r"^invalid: .*Not a directory"):
        client.ask(FrameType.FILE_MKDIR_REQ, MakeDirectoryRequest(path=str(tmp_path / "f")), FrameType.FILE_MKDIR_RESP)


def remove(client: Client, path: Path, *, recursive: bool = False) -> Any:
    request = RemoveRequest(path=str(path), recursive=recursive)
    return client.ask(FrameType.FILE_REMOVE_REQ, request, FrameType.FILE_REMOVE_RESP)


def test_files_links_and_trees_are_removed_but_not_what_links_point_to(client: Client, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "f").touch()
    (tmp_path / "tree" / "link").symlink_to(kept)
    (tmp_path / "link").symlink_to(kept)
    with pytest.raises(AgentError, match=r"^conflict: .*not empty"):
        remove(client, tmp_path / "tree")
    assert remove(client, tmp_path / "tree", recursive=True) == OK
    assert remove(client, tmp_path / "link", recursive=True) == OK
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (kept / "deep").is_dir()
    assert remove(client, kept / "deep") == OK
    with pytest.raises(AgentError, match=r"^not found: "):
        remove(client, kept / "deep")


def move(client: Client, path: Path, to: Path, *, overwrite: bool = False) -> Any:
    request = MoveRequest(path=str(path), to=str(to), overwrite=overwrite)
    return client.ask(FrameType.FILE_MOVE_REQ, request, FrameType.FILE_MOVE_RESP)


def test_a_move_replaces_only_when_told(client: Client, tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_text("new")
    target.write_text("old")
    with pytest.raises(AgentError, match=r"^conflict: "):
        move(client, source, target)
    assert move(client, source, target, overwrite=True) == OK
    assert target.read_text() == "new"
    assert not source.exists()
    with pytest.raises(AgentError, match=r"^not found: "):
        move(client, source, target, overwrite=True)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_a_tree_moves_across_file_systems(client: Client, tmp_path: Path) -> None:
    source = Path(f"/dev/shm/hearth-test-{os.getpid()}")
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "f").write_text("content")
    (source / "sub" / "f").chmod(0o640)
    (source / "link").symlink_to("sub/f")
    assert move(client, source, tmp_path / "t") == OK
    assert not source.exists()
    assert (tmp_path / "t" / "link").read_text() == "content"
    assert stat.S_IMODE((tmp_path / "t" / "sub" / "f").stat().st_mode) == 0o640


def test_modes_are_changed_for_one_or_for_all_below(client: Client, tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "e" / "f").touch()
    outside = tmp_path / "outside"
    outside.touch(0o600)
    (tmp_path / "d" / "link").symlink_to(outside)
    request = ChangeModeRequest(path=str(tmp_path / "d"), mode="0711", recursive=True)
    assert client.ask(FrameType.FILE_CHMOD_REQ, request, FrameType.FILE_CHMOD_RESP) == OK
    for path in ("d", "d/e", "d/e/f"):
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == 0o711
    assert stat.S_IMODE(outside.stat().st_mode) == 0o600
