from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.agent.conftest import wait_until
from tests.guest.peer import Caller, Peer

from hearth.errors import Conflict, Forbidden, GuestFailed, HearthError, InvalidInput, NoSpace, NotFound, TooLarge
from hearth.guest.client import Guest
from hearth.guest.files import USUAL_WRITE_BYTES, Watch
from hearth.guest.transfer import FileDownload, chunks
from hearth.wire.frames import FrameType
from hearth.wire.messages import FileInfo

LIMIT = 200_000_000


async def content(download: FileDownload) -> bytes:
    async with download:
        return await download.collect(LIMIT)


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 5_000_000])
async def test_a_file_is_read_as_it_was_written(guest: Guest, tmp_path: Path, size: int) -> None:
    path, data = tmp_path / "sub" / "f", os.urandom(size)
    await guest.files.write(str(path), data, mode="0640")
    assert path.read_bytes() == data
    async with guest.files.read(str(path)) as download:
        assert (download.size, download.mode) == (size, "0640")
        assert await download.collect(size) == data


async def test_a_stream_is_written_when_it_keeps_its_word_about_its_size(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "f"
    await guest.files.write(str(path), pieces(b"one ", b"", b"two"), size=7)
    assert path.read_bytes() == b"one two"
    for size in (3, 6, 8, 100):
        with pytest.raises(InvalidInput, match="size"):
            await guest.files.write(str(path), pieces(b"three", b"!!"), size=size)
    with pytest.raises(ValueError, match="size"):
        await guest.files.write(str(path), pieces(b"x"))
    await asyncio.to_thread(wait_until, lambda: list(tmp_path.iterdir()) == [path], "half-written files removed")
    assert path.read_bytes() == b"one two"


async def test_a_stream_that_fails_leaves_the_file_as_it_was(guest: Guest, tmp_path: Path) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield bytes(100_000)
        raise LookupError("the source broke")

    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(LookupError):
        await guest.files.write(str(path), breaks(), size=200_000)
    assert path.read_bytes() == b"old"


async def test_a_write_that_cannot_be_is_refused_without_waiting_for_the_body(guest: Guest, tmp_path: Path) -> None:
    async def never_ends() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    async with asyncio.timeout(60):
        with pytest.raises(HearthError) as caught:
            await guest.files.write(str(tmp_path), never_ends(), size=100)
        assert isinstance(caught.value, InvalidInput | Conflict)
        with pytest.raises((NoSpace, TooLarge)):
            await guest.files.write(str(tmp_path / "f"), never_ends(), size=2**50)
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240 -- a directory of this test's own


async def test_a_file_of_more_than_the_usual_size_is_written(guest: Guest, tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(USUAL_WRITE_BYTES // len(piece) + 1):
            yield piece

    piece = b"0123456789abcdef" * 65_536
    path = tmp_path / "f"
    await guest.files.write(str(path), body(), size=USUAL_WRITE_BYTES + len(piece))
    assert path.stat().st_size == USUAL_WRITE_BYTES + len(piece)
    path.unlink()


async def test_lines_and_byte_ranges_are_read_alone(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one\ntwo\r\nthree")
    assert await content(guest.files.read_lines(str(path), offset=2, limit=1)) == b"two\r\n"
    assert await content(guest.files.read_lines(str(path), offset=2)) == b"two\r\nthree"
    assert await content(guest.files.read_lines(str(path), max_bytes=5)) == b"one\nt"
    assert await content(guest.files.read_range(str(path), start=4, length=3)) == b"two"
    assert await content(guest.files.read_range(str(path), start=9)) == b"three"
    assert await content(guest.files.read_range(str(path), start=100)) == b""


async def test_a_download_larger_than_wanted_is_refused(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(bytes(1_000))
    async with guest.files.read(str(path)) as download:
        with pytest.raises(TooLarge):
            await download.collect(999)


async def test_entries_are_listed_in_order_and_told_apart(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"12")
    (tmp_path / "a").mkdir()
    (tmp_path / os.fsdecode(b"c\xff")).touch()
    entries = (await guest.files.list(str(tmp_path))).entries
    assert [(entry.name, entry.size, entry.is_dir) for entry in entries if not entry.is_dir] == [
        ("b", 2, False),
        ("c\udcff", 0, False),
    ]
    assert entries[0].name == "a"
    found = await guest.files.stat(str(tmp_path / "b"))
    assert (found.name, found.size, found.is_dir) == ("b", 2, False)


async def test_a_long_directory_is_listed_whole(guest: Guest, tmp_path: Path) -> None:
    for number in range(9_000):
        (tmp_path / f"{number:04}-{'x' * 120}").touch()
    listing = await guest.files.list(str(tmp_path))
    assert (len(listing.entries), listing.total) == (9_000, 9_000)
    assert [entry.name for entry in listing.entries] == sorted(entry.name for entry in listing.entries)


async def test_a_directory_too_long_to_list_tells_its_size(guest: Guest, tmp_path: Path) -> None:
    for number in range(10_003):
        (tmp_path / f"{number:05}").touch()
    listing = await guest.files.list(str(tmp_path))
    assert (len(listing.entries), listing.total) == (10_000, 10_003)
    assert listing.entries[-1].name == "09999"


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..", ".", "", "a/b"])
async def test_a_name_that_would_lead_elsewhere_is_refused(peer: Peer, steady: Guest, name: str) -> None:
    def script(caller: Caller) -> None:
        caller.read()
        files = [FileInfo(name=n, size=0, mode="0644", is_dir=False, mtime=0) for n in (name, "fine")]
        caller.reply(FrameType.FILE_LS_RESP, files)

    peer.serve(script)
    with pytest.raises(GuestFailed, match="a file named"):
        await steady.files.list("/d")


async def test_directories_are_made_moved_changed_and_removed(guest: Guest, tmp_path: Path) -> None:
    files = guest.files
    await files.make_directory(str(tmp_path / "a" / "b"), mode="0700")
    await files.make_directory(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").stat().st_mode & 0o7777 == 0o700
    await files.change_mode(str(tmp_path / "a" / "b"), "0750")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o7777 == 0o750
    await files.move(str(tmp_path / "a"), str(tmp_path / "c"))
    (tmp_path / "d").write_bytes(b"d")
    (tmp_path / "e").write_bytes(b"e")
    with pytest.raises(Conflict):
        await files.move(str(tmp_path / "d"), str(tmp_path / "e"))
    await files.move(str(tmp_path / "d"), str(tmp_path / "e"), overwrite=True)
    assert (tmp_path / "e").read_bytes() == b"d"
    with pytest.raises(Conflict):
        await files.remove(str(tmp_path / "c"))
    await files.remove(str(tmp_path / "c"), recursive=True)
    await files.remove(str(tmp_path / "e"))
    assert (await files.list(str(tmp_path))).entries == []


async def test_what_is_not_there_is_not_found(guest: Guest, tmp_path: Path) -> None:
    nothing = str(tmp_path / "nothing")
    files = guest.files
    for operation in (
        lambda: content(files.read(nothing)),
        lambda: content(files.read_range(nothing, start=0)),
        lambda: files.stat(nothing),
        lambda: files.list(nothing),
        lambda: files.remove(nothing),
        lambda: files.move(nothing, nothing + "2"),
        lambda: files.change_mode(nothing, "0600"),
        lambda: enter(files.watch(nothing)),
    ):
        with pytest.raises(NotFound):
            await operation()


async def enter(watch: Watch) -> None:
    async with watch:
        pass


async def test_what_the_guests_system_forbids_is_forbidden(guest: Guest) -> None:
    with pytest.raises((Forbidden, NotFound, InvalidInput)):
        await guest.files.write("/proc/nonsense", b"x")


def archive(**members: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


async def test_a_tree_travels_as_an_archive_both_ways(guest: Guest, tmp_path: Path) -> None:
    source, target = tmp_path / "from", tmp_path / "to"
    await guest.files.write_tar(str(source), chunks(archive(a=b"one", b=os.urandom(400_000))))
    assert (source / "a").read_bytes() == b"one"
    async with guest.files.read_tar(str(source)) as download:
        await guest.files.write_tar(str(target), download)
    assert (target / "b").read_bytes() == (source / "b").read_bytes()


async def test_a_broken_archive_is_refused(guest: Guest, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        await guest.files.write_tar(str(tmp_path / "d"), chunks(b"this is no archive" * 100))


async def test_changes_are_told_as_they_happen(guest: Guest, tmp_path: Path) -> None:
    async with guest.files.watch(str(tmp_path)) as watch, asyncio.timeout(60):
        (tmp_path / "f").touch()
        event = await anext(watch)
        assert (event.kind, event.path) == ("created", str(tmp_path / "f"))
        (tmp_path / "f").unlink()
        while event.kind != "removed":
            event = await anext(watch)
        assert event.path == str(tmp_path / "f")
