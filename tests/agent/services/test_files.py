"""File requests against a real agent process."""

from __future__ import annotations

import os
import socket
import stat
import threading
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.agent.client import AgentError, Client, Result, Wire
from tests.agent.conftest import MACHINE_AGENT, wait_until
from tests.agent.services.test_trees import OK, remove

from hearth.agent.files.reading import select
from hearth.wire.frames import FrameType
from hearth.wire.messages import (
    FileInfo,
    FileRangeRequest,
    FileReadRequest,
    FileReadResponse,
    FileWriteRequest,
    PathRequest,
    decode,
    decode_list,
)

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")
NOT_ROOT = pytest.mark.skipif(os.geteuid() == 0 or bool(MACHINE_AGENT), reason="root may read everything")


def read(client: Client, path: Path | str, **part: int) -> tuple[FileReadResponse, bytes]:
    with client.connect() as wire:
        wire.request(FrameType.FILE_READ_REQ, FileReadRequest(path=str(path), **part))
        reply = decode(FileReadResponse, wire.expect(FrameType.FILE_READ_RESP))
        result = Result(wire)
    assert result.exit_code == 0
    return reply, result.stdout


def begin_write(client: Client, path: Path | str, size: int, mode: str | None = None) -> Wire:
    wire = client.connect()
    wire.request(FrameType.FILE_WRITE_REQ, FileWriteRequest(path=str(path), size=size, mode=mode))
    return wire


def write(client: Client, path: Path | str, data: bytes, mode: str | None = None, *, size: int | None = None) -> None:
    with begin_write(client, path, len(data) if size is None else size, mode) as wire:
        for start in range(0, len(data), 50_000):
            wire.send(FrameType.STDIN, data[start : start + 50_000])
        if size is not None:
            wire.half_close()
        assert wire.expect(FrameType.FILE_WRITE_RESP) == b'{"status":"ok"}'
        assert wire.read_or_none() is None


def list_(client: Client, path: Path | str) -> list[FileInfo]:
    entries: list[FileInfo] = []
    with client.connect() as wire:
        wire.request(FrameType.FILE_LS_REQ, PathRequest(path=str(path)))
        while (frame := wire.read_or_none()) is not None:
            if frame.type == FrameType.ERROR:
                raise AgentError(frame.payload.decode())
            entries += decode_list(FileInfo, frame.payload)
    return entries


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("data", [b"", b"one", b"a\nb\n", bytes(range(256)) * 5000], ids=len)
def test_a_file_is_read_whole(client: Client, tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "naïve 文件"
    path.write_bytes(data)
    path.chmod(0o640)
    reply, content = read(client, path)
    assert content == data
    assert (reply.size, reply.mode) == (len(data), "0640")


def test_a_procfs_file_says_0_and_still_streams(client: Client) -> None:
    reply, content = read(client, "/proc/self/status")
    assert reply.size == 0
    assert b"VmRSS" in content


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"offset": 1}, b"one\ntwo\r\nthree\nfour"),
        ({"offset": 3}, b"three\nfour"),
        ({"offset": 5}, b""),
        ({"limit": 2}, b"one\ntwo\r\n"),
        ({"limit": 0}, b""),
        ({"limit": 9}, b"one\ntwo\r\nthree\nfour"),
        ({"offset": 4, "limit": 1}, b"four"),
        ({"max_bytes": 5}, b"one\nt"),
        ({"max_bytes": 0}, b""),
        ({"offset": 2, "limit": 2, "max_bytes": 4}, b"two\r"),
        ({"offset": 2, "limit": 1, "max_bytes": 100}, b"two\r\n"),
    ],
)
def test_a_part_is_selected_by_lines_and_bytes(
    client: Client, tmp_path: Path, part: dict[str, int], expected: bytes
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one\ntwo\r\nthree\nfour")
    reply, content = read(client, path, **part)
    assert content == expected
    assert reply.size == 19


def test_a_very_long_line_is_cut_not_dropped(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * 2_000_000 + b"\nrest\n")
    assert read(client, path, limit=1, max_bytes=1_000_000)[1] == b"x" * 1_000_000
    assert read(client, path, offset=2)[1] == b"rest\n"


@given(
    data=st.lists(st.sampled_from([b"a", b"\n", b"bc", b"\r\n", b"\0"]), max_size=40).map(b"".join),
    cuts=st.lists(st.integers(min_value=0, max_value=60), max_size=6),
    offset=st.integers(min_value=1, max_value=12),
    limit=st.none() | st.integers(min_value=0, max_value=12),
    max_bytes=st.none() | st.integers(min_value=0, max_value=30),
)
def test_selection_does_not_depend_on_how_the_file_was_cut(
    data: bytes, cuts: list[int], offset: int, limit: int | None, max_bytes: int | None
) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges) if a < b]
    lines = data.split(b"\n")
    wanted = [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
    expected = b"".join(wanted[offset - 1 :][:limit])[:max_bytes]
    assert b"".join(select(pieces, offset=offset, limit=limit, max_bytes=max_bytes)) == expected


@pytest.mark.parametrize("part", [{"offset": 0}, {"limit": -1}, {"max_bytes": -5}])
def test_a_senseless_part_is_refused_by_name(client: Client, tmp_path: Path, part: dict[str, int]) -> None:
    with pytest.raises(AgentError, match=rf"^invalid: {next(iter(part))} is "):
        read(client, tmp_path, **part)


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(0, None, b"0123456789"), (3, 4, b"3456"), (8, 99, b"89"), (99, 1, b""), (2, 0, b"")],
)
def test_a_byte_range_is_read(client: Client, tmp_path: Path, start: int, length: int | None, expected: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    with client.connect() as wire:
        request = FileRangeRequest(path=str(path), start=start, length=length)
        wire.request(FrameType.FILE_READ_RANGE_REQ, request)
        assert decode(FileReadResponse, wire.expect(FrameType.FILE_READ_RANGE_RESP)).size == 10
        assert Result(wire).stdout == expected


def test_what_is_no_regular_file_is_not_read(client: Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        for path, text in (
            (tmp_path, "Is a directory"),
            (tmp_path / "fifo", "Not a regular file"),
            (tmp_path / "s", "Not a regular file"),
            (Path("/dev/zero"), "Not a regular file"),
        ):
            with pytest.raises(AgentError, match=rf"^invalid: .*: {text}"):
                read(client, path)
            with pytest.raises(AgentError, match=rf"^invalid: .*: {text}"):
                write(client, path, b"")


def test_missing_and_malformed_paths_are_told_apart(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, kind in (
        (tmp_path / "none", "not found"),
        (Path("/" + "x" * 5000), "invalid"),
        (tmp_path / "file" / "below", "invalid"),
    ):
        with pytest.raises(AgentError, match=rf"^{kind}: "):
            read(client, path)
    with pytest.raises(AgentError, match=r"^not found: "):
        read(client, "")


@NOT_ROOT
def test_a_file_without_permission_is_denied(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch(0o000)
    with pytest.raises(AgentError, match=r"^denied: "):
        read(client, path)


@pytest.mark.parametrize("size", [0, 1, 1024, 3_000_000])
def test_a_file_is_written_with_its_parents(client: Client, tmp_path: Path, size: int) -> None:
    path = tmp_path / "a" / "b" / "ü"
    data = os.urandom(size)
    write(client, path, data, "0600")
    assert path.read_bytes() == data
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert names(path.parent) == ["ü"]


def test_an_overwrite_keeps_the_mode_unless_told(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    path.chmod(0o4751)
    write(client, path, b"1")
    assert stat.S_IMODE(path.stat().st_mode) == 0o4751
    write(client, path, b"2", "644")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@ROOT_ONLY
def test_an_overwrite_keeps_the_owner(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    os.chown(path, 1234, 4321)
    write(client, path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 4321)


def test_a_symlink_is_followed_and_stays(client: Client, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link, dangling = tmp_path / "real" / "f", tmp_path / "link", tmp_path / "dangling"
    target.write_text("old")
    link.symlink_to("real/f")
    dangling.symlink_to("real/new")
    write(client, link, b"new")
    write(client, dangling, b"made")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert (tmp_path / "real" / "new").read_text() == "made"


def test_a_size_out_of_bounds_is_refused_before_the_body(client: Client, tmp_path: Path) -> None:
    for size, text in ((-1, r"^invalid: size is -1"), (100 * 1024 * 1024 + 1, r"^too large: ")):
        with begin_write(client, tmp_path / "f", size) as wire, pytest.raises(AgentError, match=text):
            wire.read()
    assert names(tmp_path) == []


@pytest.mark.parametrize("mode", ["9", "rwx", "", "77777", "-1", "0o644"])
def test_a_mode_that_is_not_octal_is_refused(client: Client, tmp_path: Path, mode: str) -> None:
    with begin_write(client, tmp_path / "f", 3, mode) as wire, pytest.raises(AgentError, match=r"^invalid: mode "):
        wire.read()


def test_a_bad_path_is_refused_before_the_body_and_the_answer_arrives(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "below", f"{tmp_path}/new/"):
        with begin_write(client, path, 2_000_000) as wire:
            wire.send(FrameType.STDIN, bytes(1_000_000))
            wire.send(FrameType.STDIN, bytes(1_000_000))
            with pytest.raises(AgentError, match=r"^invalid: "):
                wire.read()
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("size", [4, 6])
def test_a_body_of_another_size_leaves_the_target_untouched(client: Client, tmp_path: Path, size: int) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(AgentError, match=r"^invalid: the body "):
        write(client, path, b"12345", size=size)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["f"]


def test_a_client_that_leaves_in_the_middle_leaves_nothing(client: Client, tmp_path: Path) -> None:
    with begin_write(client, tmp_path / "f", 10) as wire:
        wire.send(FrameType.STDIN, b"12345")
        wait_until(lambda: names(tmp_path) != [], "the write began")
    wait_until(lambda: names(tmp_path) == [], "the temporary gone")


def test_two_writers_of_one_path_never_mix_and_a_reader_sees_only_whole_files(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "f"
    bodies = [bytes([letter]) * 200_000 for letter in b"ab"]
    write(client, path, bodies[0])
    failures: list[BaseException] = []

    def work(body: bytes) -> None:
        try:
            for _ in range(15):
                write(client, path, body)
        except BaseException as error:  # noqa: BLE001 -- shown by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for _ in range(30):
        assert read(client, path)[1] in bodies
    for thread in threads:
        thread.join()
    assert not failures
    assert path.read_bytes() in bodies
    assert names(tmp_path) == ["f"]


def test_stat_tells_the_file_behind_a_link(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    path.chmod(0o751)
    os.utime(path, (0, 1_700_000_000))
    (tmp_path / "link").symlink_to(path)
    told = client.ask(FrameType.FILE_STAT_REQ, PathRequest(path=str(tmp_path / "link")), FrameType.FILE_STAT_RESP)
    assert told == {"name": "link", "size": 5, "mode": "0751", "is_dir": False, "mtime": 1_700_000_000}
    assert client.ask(FrameType.FILE_STAT_REQ, PathRequest(path="/"), FrameType.FILE_STAT_RESP)["name"] == "/"


def test_a_directory_is_listed_sorted_with_links_as_themselves(client: Client, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("xy")
    (tmp_path / "a").mkdir()
    (tmp_path / "c").symlink_to("/no/where")
    (tmp_path / os.fsdecode(b"\xff")).touch()
    entries = list_(client, tmp_path)
    assert [entry.name for entry in entries] == ["a", "b", "c", "\udcff"]
    assert [entry.is_dir for entry in entries] == [True, False, False, False]
    assert entries[1].size == 2
    assert list_(client, tmp_path / "a") == []


def test_a_huge_directory_ends_with_an_entry_that_tells_the_total(client: Client, tmp_path: Path) -> None:
    for number in range(10_003):
        (tmp_path / f"{number:05}{'n' * 150}").touch()
    entries = list_(client, tmp_path)
    assert len(entries) == 10_001
    assert entries[9_999].name.startswith("09999")
    assert entries[10_000].size == 10_003
    assert "10003" in entries[10_000].name


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=30, deadline=None
)
@given(name=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_name_can_be_written_read_and_listed(client: Client, tmp_path: Path, name: str) -> None:
    if name in (".", ".."):
        return
    write(client, tmp_path / "d" / name, name.encode())
    assert read(client, tmp_path / "d" / name)[1] == name.encode()
    assert [entry.name for entry in list_(client, tmp_path / "d")] == [name]
    assert remove(client, tmp_path / "d" / name) == OK
