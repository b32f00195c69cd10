"""TAR_READ and TAR_WRITE against the system's own tar and against hostile archives."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.agent.client import AgentError, Client, Result

from hearth.wire.frames import FrameType
from hearth.wire.messages import ChangeModeRequest, PathRequest, RemoveRequest, TarWriteRequest


def pull(client: Client, path: Path) -> bytes:
    with client.connect() as wire:
        wire.request(FrameType.TAR_READ_REQ, PathRequest(path=str(path)))
        wire.expect(FrameType.TAR_READ_RESP)
        result = Result(wire)
    assert result.exit_code == 0
    return result.stdout


def push(client: Client, path: Path, data: bytes, *, end: bool = True) -> None:
    with client.connect() as wire:
        wire.request(FrameType.TAR_WRITE_REQ, TarWriteRequest(path=str(path)))
        for start in range(0, len(data), 100_000):
            wire.send(FrameType.STDIN, data[start : start + 100_000])
        if end:
            wire.send(FrameType.STDIN_EOF)
        else:
            wire.half_close()
        assert wire.expect(FrameType.TAR_WRITE_RESP) == b'{"status":"ok"}'


def archive(members: Iterable[tuple[str, bytes | None, str]]) -> bytes:
    """Make an archive of (name, type, link target); a regular file's content is its name."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind or tarfile.REGTYPE, link
            content = name.encode() if kind is None else b""
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return target.getvalue()


def make_tree(top: Path) -> None:
    (top / "dir" / "empty").mkdir(parents=True)
    (top / "dir" / "big").write_bytes(os.urandom(700_000))
    (top / "dir" / ("long" * 60)).write_text("long name")
    (top / "ünï").write_text("text")
    (top / "zero").touch()
    (top / "link").symlink_to("dir/big")
    (top / "dangling").symlink_to("/no/where")
    os.link(top / "dir" / "big", top / "hard")
    os.mkfifo(top / "fifo")
    (top / "ünï").chmod(0o4711)
    (top / "dir").chmod(0o750)


def snapshot(top: Path) -> dict[str, tuple[int, bytes | str | None]]:
    found: dict[str, tuple[int, bytes | str | None]] = {}
    for path in sorted(top.rglob("*")):
        mode = path.lstat().st_mode
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(top))] = (mode, content)
    return found


def test_a_tree_survives_the_way_out_and_in(client: Client, tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "new" / "copy"
    source.mkdir()
    make_tree(source)
    push(client, copy, pull(client, source))
    assert snapshot(copy) == snapshot(source)
    assert (copy / "hard").samefile(copy / "dir" / "big")


def test_the_systems_tar_reads_what_comes_out_and_writes_what_goes_in(client: Client, tmp_path: Path) -> None:
    source, out, back = tmp_path / "source", tmp_path / "out", tmp_path / "back"
    source.mkdir()
    out.mkdir()
    make_tree(source)
    subprocess.run(["tar", "-xpf", "-", "-C", out], input=pull(client, source), check=True)
    assert snapshot(out) == snapshot(source)
    packed = subprocess.run(["tar", "-cf", "-", "-C", source, "."], stdout=subprocess.PIPE, check=True).stdout
    push(client, back, packed)
    assert snapshot(back) == snapshot(source)


def test_one_file_packs_under_its_own_name(client: Client, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    with tarfile.open(fileobj=io.BytesIO(pull(client, tmp_path / "f"))) as tar:
        assert tar.getnames() == ["f"]


def test_what_is_there_is_replaced_and_an_empty_archive_is_fine(client: Client, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("kept")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "f").symlink_to(outside)
    push(client, tmp_path / "t", archive([("f", None, "")]))
    assert (tmp_path / "t" / "f").read_text() == "f"
    assert not (tmp_path / "t" / "f").is_symlink()
    assert outside.read_text() == "kept"
    push(client, tmp_path / "e", archive([]))
    assert list((tmp_path / "e").iterdir()) == []


@pytest.mark.parametrize(
    "members",
    [
        [("/absolute", None, "")],
        [("../climbs", None, "")],
        [("a/../../climbs", None, "")],
        [("link", tarfile.SYMTYPE, "/"), ("link/tmp/through", None, "")],
        [("link", tarfile.SYMTYPE, ".."), ("link/through", None, "")],
        [("link", tarfile.SYMTYPE, ".."), ("link/d", tarfile.DIRTYPE, "")],
        [("hard", tarfile.LNKTYPE, "../outside")],
        [("hard", tarfile.LNKTYPE, "/etc/passwd")],
    ],
    ids=lambda members: members[-1][0] + "-" + members[-1][2].replace("/", "_"),
)
def test_no_member_lands_outside(client: Client, tmp_path: Path, members: list[tuple[str, bytes | None, str]]) -> None:
    (tmp_path / "outside").write_text("kept")
    with pytest.raises(AgentError, match=r"^invalid: "):
        push(client, tmp_path / "top", archive(members))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "top"]
    assert (tmp_path / "outside").stat().st_nlink == 1


@pytest.mark.parametrize("data", [b"", b"no tar at all" * 100, archive([("f", None, "")])[:700], b"\xff" * 512])
def test_a_broken_archive_is_refused(client: Client, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(AgentError, match=r"^invalid: not a tar archive"):
        push(client, tmp_path / "t", data)


def test_a_header_that_claims_gigabytes_is_refused_before_they_come(client: Client, tmp_path: Path) -> None:
    member = tarfile.TarInfo("pax")
    member.type, member.size = tarfile.XHDTYPE, 5 * 1024**3
    with pytest.raises(AgentError, match=r"^invalid: not a tar archive: a header of 5368709120 bytes"):
        push(client, tmp_path / "t", member.tobuf(tarfile.GNU_FORMAT))


def test_a_connection_that_ends_early_is_an_error(client: Client, tmp_path: Path) -> None:
    with pytest.raises(AgentError, match=r"^invalid: the body ended after 512 bytes"):
        push(client, tmp_path / "t", archive([("f", None, "")])[:512], end=False)


def test_a_tree_nested_too_deep_is_refused_and_stays(client: Client, tmp_path: Path) -> None:
    make_deep(tmp_path, 1100)
    with client.connect() as wire, pytest.raises(AgentError, match=r"^too large: the tree is nested too deep"):
        wire.request(FrameType.FILE_REMOVE_REQ, RemoveRequest(path=str(tmp_path / "d"), recursive=True))
        wire.read()
    change = ChangeModeRequest(path=str(tmp_path / "d"), mode="0755", recursive=True)
    with client.connect() as wire, pytest.raises(AgentError, match=r"^too large: the tree is nested too deep"):
        wire.request(FrameType.FILE_CHMOD_REQ, change)
        wire.read()
    assert (tmp_path / "d" / "d").is_dir()
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def make_deep(top: Path, depth: int) -> None:
    """Make directories in each other, deeper than a path can say."""
    current = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=current)
        below = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    os.close(current)


def test_a_missing_tree_is_told_before_anything_else(client: Client, tmp_path: Path) -> None:
    with client.connect() as wire, pytest.raises(AgentError, match=r"^not found: "):
        wire.request(FrameType.TAR_READ_REQ, PathRequest(path=str(tmp_path / "none")))
        wire.read()


def test_a_read_only_directory_in_an_archive_gets_its_files(client: Client, tmp_path: Path) -> None:
    source = tmp_path / "s"
    (source / "d").mkdir(parents=True)
    (source / "d" / "f").write_text("x")
    (source / "d").chmod(0o555)
    push(client, tmp_path / "t", pull(client, source))
    assert (tmp_path / "t" / "d" / "f").read_text() == "x"
    assert stat.S_IMODE((tmp_path / "t" / "d").stat().st_mode) == 0o555
    for path in (source / "d", tmp_path / "t" / "d"):
        path.chmod(0o755)
