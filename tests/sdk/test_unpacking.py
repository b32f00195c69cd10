"""An archive from a sandbox may hold anything: nothing of it leaves the directory it is unpacked in."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from hearth.errors import Conflict, GuestFailed, HearthError
from hearth.sdk.local_files import NewFile, tar_of
from hearth.sdk.unpacking import Unpacker

Member = tuple[str, bytes, str | bytes]
"""Name, type, and content or target."""


def archive(*members: Member) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, given in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o6755
            content = given if isinstance(given, bytes) else b""
            info.size, info.linkname = len(content), given if isinstance(given, str) else ""
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def unpack(data: bytes, root: Path, *, piece: int = 700) -> list[str]:
    with Unpacker(root) as unpacker:
        for start in range(0, len(data), piece):
            unpacker.feed(data[start : start + piece])
        return unpacker.finish().skipped


FILE, DIR, SYM, LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def test_what_was_packed_is_unpacked_the_same(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a" / "empty").mkdir(parents=True)
    (source / "a" / "file").write_bytes(os.urandom(1_000_000))
    (source / "a" / ("n" * 200)).write_text("long")
    (source / "a" / os.fsdecode(b"\xff\xfe")).write_text("no text")
    (source / "a" / "link").symlink_to("../a/file")
    (source / "a" / "file").chmod(0o751)
    os.mkfifo(source / "fifo")
    skipped: list[str] = []
    pieces = list(tar_of(source, skipped))
    assert (skipped, max(map(len, pieces)) < 1_000_000) == (["fifo"], True)
    target = tmp_path / "target"
    assert unpack(b"".join(pieces), target) == []
    assert names(target / "a") == names(source / "a")
    assert (target / "a" / "file").read_bytes() == (source / "a" / "file").read_bytes()
    assert (target / "a" / "file").stat().st_mode & 0o777 == 0o751
    assert (target / "a" / "link").readlink() == Path("../a/file")


@pytest.mark.parametrize(
    "members",
    [
        [("../outside", FILE, b"x")],
        [("/outside", FILE, b"x")],
        [("a/../../outside", FILE, b"x")],
        [("a", SYM, ".."), ("a/outside", FILE, b"x")],
        [("hard", LINK, "../outside")],
        [("", FILE, b"x")],
    ],
)
def test_nothing_is_written_outside(tmp_path: Path, members: list[Member]) -> None:
    (tmp_path / "root").mkdir()
    with contextlib.suppress(HearthError):
        unpack(archive(*members), tmp_path / "root")
    assert not (tmp_path / "outside").exists()
    assert names(tmp_path) == ["root"]


def test_what_leads_outside_is_refused_or_left_out(tmp_path: Path) -> None:
    with pytest.raises(GuestFailed, match="leads outside"):
        unpack(archive(("../outside", FILE, b"x")), tmp_path)
    links = ("../x", "/etc/passwd", "a/../../x", "d/l/../../x")
    members: list[Member] = [(f"link{number}", SYM, target) for number, target in enumerate(links)]
    assert unpack(archive(*members, ("null", tarfile.CHRTYPE, "")), tmp_path) == [*(m[0] for m in members), "null"]
    assert names(tmp_path) == []


def test_a_symlink_that_is_here_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "down").symlink_to("../elsewhere")
    with pytest.raises(Conflict, match="down"):
        unpack(archive(("down/file", FILE, b"x")), tmp_path / "root")
    (tmp_path / "root" / "file").symlink_to("../elsewhere/target")
    unpack(archive(("file", FILE, b"new")), tmp_path / "root")
    assert (tmp_path / "root" / "file").read_bytes() == b"new"
    assert names(tmp_path / "elsewhere") == []


def test_no_file_gets_rights_of_another(tmp_path: Path) -> None:
    unpack(archive(("tool", FILE, b"x"), ("again", LINK, "tool")), tmp_path)
    assert (tmp_path / "tool").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "again").read_bytes() == b"x"


@pytest.mark.parametrize("data", [b"not an archive at all" * 100, archive(("a", FILE, b"x" * 5000))[:2048]])
def test_what_is_no_whole_archive_is_told(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(GuestFailed, match="no archive"):
        unpack(data, tmp_path)


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 2**40
    with pytest.raises(GuestFailed, match="no archive"):
        unpack(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024), tmp_path)


def test_an_unpacking_that_is_left_ends(tmp_path: Path) -> None:
    with pytest.raises(KeyError), Unpacker(tmp_path) as unpacker:
        unpacker.feed(archive(("a", FILE, b"x" * 100_000))[:50_000])
        raise KeyError


def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyError), NewFile(tmp_path / "file") as file:
        file.write(b"half")
        raise KeyError
    assert names(tmp_path) == []
    with NewFile(tmp_path / "file") as file:
        file.write(b"whole")
        file.commit(0o4755)
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o755
    assert names(tmp_path) == ["file"]
