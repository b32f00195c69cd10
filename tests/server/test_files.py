"""Files through the API, moved by a real agent: bytes, ranges, lines, lists, archives, and what becomes of halves."""

from __future__ import annotations

import http.client
import io
import json
import os
import pwd
import re
import signal
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_from_bytes

import pytest
from tests.server.daemon import RunningDaemon
from tests.server.test_app import UnixConnection

from hearth.sdk.client import Client, Sandbox

MIB = 1024 * 1024
WAIT_S = 60
TAR = "application/x-tar"


@contextmanager
def asking(
    daemon: RunningDaemon, method: str, target: str, body: Any = None, *, token: str | None = None, **headers: str
) -> Iterator[http.client.HTTPResponse]:
    """Send one request and give its answer, of which the head has come."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    connection = UnixConnection(str(daemon.data.api_socket))
    try:
        connection.request(method, target, body, {"Authorization": f"Bearer {token or daemon.token}", **sent})
        yield connection.getresponse()
    finally:
        connection.close()


@contextmanager
def files(
    daemon: RunningDaemon, method: str, sandbox: str, path: Path | str, body: Any = None, more: str = "", **headers: str
) -> Iterator[http.client.HTTPResponse]:
    target = f"/api/v1/sandboxes/{sandbox}/files?path={quote(str(path))}{more}"
    with asking(daemon, method, target, body, **headers) as answer:
        yield answer


def problem(answer: http.client.HTTPResponse) -> tuple[int, str]:
    return answer.status, json.loads(answer.read())["code"]


def is_cut(answer: http.client.HTTPResponse) -> bool:
    """Read to the end, and tell whether a reader can see that it came too early."""
    try:
        while answer.read(MIB):
            continue
    except (http.client.IncompleteRead, ConnectionResetError):
        return True
    return bool(answer.length)


def wait_until(true: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_written_is_read_with_its_size_and_mode(daemon: RunningDaemon, shared: str, tmp_path: Path) -> None:
    path, content = tmp_path / "new" / "é file", bytes(range(256)) * 12_000
    with files(daemon, "PUT", shared, path, content, "&mode=0750") as answer:
        assert (answer.status, answer.read()) == (204, b"")
    assert path.read_bytes() == content
    with files(daemon, "GET", shared, path) as answer:
        assert (answer.status, answer.getheader("X-File-Size")) == (200, str(len(content)))
        assert answer.getheader("X-File-Mode") == "0750"
        assert answer.getheader("Content-Length") == str(len(content))
        assert answer.getheader("Content-Type") == "application/octet-stream"
        assert answer.read() == content
    with files(daemon, "HEAD", shared, path) as answer:
        assert (answer.status, answer.read()) == (200, b"")
        told = [answer.getheader(name) for name in ("X-File-Size", "X-File-Mode", "X-File-IsDir", "Content-Length")]
        assert told == [str(len(content)), "0750", "false", str(len(content))]
    with files(daemon, "HEAD", shared, tmp_path) as answer:
        assert (answer.getheader("X-File-IsDir"), answer.getheader("Content-Length")) == ("true", "0")


def test_an_overwrite_keeps_mode_and_goes_through_a_link(daemon: RunningDaemon, shared: str, tmp_path: Path) -> None:
    path, link = tmp_path / "f", tmp_path / "link"
    path.write_bytes(b"old")
    path.chmod(0o711)
    link.symlink_to(path)
    with files(daemon, "PUT", shared, link, b"") as answer:
        assert answer.status == 204
    assert (path.read_bytes(), path.stat().st_mode & 0o777, link.is_symlink()) == (b"", 0o711, True)
    assert {each.name for each in tmp_path.iterdir()} == {"f", "link"}


@pytest.mark.skipif(os.geteuid() != 0, reason="the development engine's agent can give files away as root only")
def test_what_is_written_becomes_whose_it_is_said_to_be(daemon: RunningDaemon, shared: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / "f"
    with files(daemon, "PUT", shared, path, b"x", "&user=nobody") as answer:
        assert answer.status == 204
    nobody = pwd.getpwnam("nobody")
    owners = [(each.stat().st_uid, each.stat().st_gid) for each in (path, path.parent, tmp_path)]
    assert owners == [(nobody.pw_uid, nobody.pw_gid)] * 2 + [(0, 0)]
    with files(daemon, "PUT", shared, path, b"y") as answer:
        assert (answer.status, path.stat().st_uid) == (204, nobody.pw_uid)
    with files(daemon, "PUT", shared, path, b"z", "&user=1234") as answer:
        assert (answer.status, path.stat().st_uid, path.read_bytes()) == (204, 1234, b"z")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a/b"))
    with files(daemon, "PUT", shared, tmp_path / "top", packed.getvalue(), "&user=nobody", Content_Type=TAR) as answer:
        assert answer.status == 204
    assert {each.stat().st_uid for each in (tmp_path / "top").rglob("*")} == {nobody.pw_uid}
    with files(daemon, "PUT", shared, path, b"z", "&user=no-such-user") as answer:
        assert problem(answer) == (400, "invalid")


@pytest.mark.parametrize(
    ("asked", "status", "part", "told"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=8-100", 206, b"89", "bytes 8-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-100", 206, b"0123456789", "bytes 0-9/10"),
        ("Bytes=9-9", 206, b"9", "bytes 9-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=5-2", 200, b"0123456789", None),
        ("bytes=0-1,4-5", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=x", 200, b"0123456789", None),
    ],
)
def test_a_range_is_given_as_the_standard_says(
    daemon: RunningDaemon, shared: str, tmp_path: Path, asked: str, status: int, part: bytes | None, told: str | None
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"0123456789")
    with files(daemon, "GET", shared, path, Range=asked) as answer:
        assert (answer.status, answer.getheader("Content-Range")) == (status, told)
        content = answer.read()
        if part is None:
            assert json.loads(content)["code"] == "range_not_satisfiable"
        else:
            assert (content, answer.getheader("X-File-Size")) == (part, "10")
    with files(daemon, "GET", shared, path, Range=asked, If_Range='"an earlier one"') as answer:
        assert (answer.status, answer.read()) == (200, b"0123456789")


@pytest.mark.parametrize(
    ("more", "part"),
    [
        ("&offset=2&limit=1", b"two\r\n"),
        ("&offset=2", b"two\r\nthree"),
        ("&limit=1", b"one\n"),
        ("&max_bytes=5", b"one\nt"),
        ("&offset=9", b""),
        ("&limit=0", b""),
    ],
)
def test_lines_are_given_alone(daemon: RunningDaemon, shared: str, tmp_path: Path, more: str, part: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"one\ntwo\r\nthree")
    with files(daemon, "GET", shared, path, more=more) as answer:
        assert (answer.status, answer.getheader("X-File-Size"), answer.read()) == (200, "14", part)


def test_a_file_of_the_kernel_is_read_to_its_end_though_it_says_that_it_is_empty(
    daemon: RunningDaemon, shared: str
) -> None:
    with files(daemon, "GET", shared, "/proc/self/status") as answer:
        assert (answer.status, answer.getheader("Content-Length")) == (200, None)
        assert b"VmPeak" in answer.read()


def test_a_directory_is_listed(daemon: RunningDaemon, shared: str, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"12345")
    (tmp_path / "a").mkdir(mode=0o700)
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/c\xff"))).touch()
    os.utime(tmp_path / "b", (1_000_000_000, 1_000_000_000))
    with files(daemon, "GET", shared, tmp_path, more="&ls=true") as answer:
        listing = json.loads(answer.read())
    assert (answer.status, listing["total"]) == (200, 3)
    assert [each["name"] for each in listing["items"]] == ["a", "b", "c\ufffd"]
    assert listing["items"][1] == {
        "name": "b",
        "size": 5,
        "mode": "0644",
        "is_dir": False,
        "modified_at": "2001-09-09T01:46:40Z",
        "name_base64": None,
    }
    assert (listing["items"][0]["is_dir"], listing["items"][0]["mode"]) == (True, "0700")
    assert listing["items"][2]["name_base64"] == "Y/8="


def test_a_name_that_is_no_text_is_reached_all_the_same(daemon: RunningDaemon, shared: str, tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/\xff\xfe"
    target = f"/api/v1/sandboxes/{shared}/files?path={quote_from_bytes(raw)}"
    with asking(daemon, "PUT", target, b"content") as answer:
        assert answer.status == 204
    with asking(daemon, "GET", target) as answer:
        assert answer.read() == b"content"
    with asking(daemon, "DELETE", target) as answer:
        assert answer.status == 204
    with asking(daemon, "GET", target) as answer:
        assert problem(answer) == (404, "not_found")


def test_what_is_removed_is_gone_and_a_tree_only_if_it_is_said(
    daemon: RunningDaemon, shared: str, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "below" / "f").write_bytes(b"x")
    with files(daemon, "DELETE", shared, tree) as answer:
        assert problem(answer) == (409, "conflict")
    with files(daemon, "DELETE", shared, tree, more="&recursive=true") as answer:
        assert answer.status == 204
    assert not tree.exists()
    with files(daemon, "DELETE", shared, tree) as answer:
        assert problem(answer) == (404, "not_found")


def test_archives_go_both_ways(daemon: RunningDaemon, shared: str, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in (("a/b", b"inner"), ("c", b"x" * 300_000)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    top = tmp_path / "top"
    pieces = iter([packed.getvalue()[:5000], packed.getvalue()[5000:]])
    with files(daemon, "PUT", shared, top, pieces, Content_Type=TAR) as answer:
        assert answer.status == 204
    assert ((top / "a" / "b").read_bytes(), (top / "c").stat().st_size) == (b"inner", 300_000)
    with files(daemon, "GET", shared, top, Accept=TAR) as answer:
        assert (answer.status, answer.getheader("Content-Type")) == (200, TAR)
        with tarfile.open(fileobj=io.BytesIO(answer.read())) as archive:
            inner = archive.extractfile("a/b")
            assert inner is not None
            assert inner.read() == b"inner"


@pytest.mark.parametrize(
    ("method", "target", "headers", "expected"),
    [
        ("GET", "?path=relative", {}, (400, "invalid")),
        ("GET", "", {}, (400, "invalid")),
        ("GET", "?path=/tmp/x&path=/tmp/y", {}, (400, "invalid")),
        ("GET", "?path=/tmp&colour=red", {}, (400, "invalid")),
        ("GET", "?path=/tmp", {}, (400, "invalid")),
        ("GET", "?path=/etc/passwd&ls=true", {}, (400, "invalid")),
        ("GET", "?path=/tmp&ls=true&limit=1", {}, (400, "invalid")),
        ("GET", "?path=/etc/passwd&offset=0", {}, (400, "invalid")),
        ("GET", "?path=/dev/zero", {}, (400, "invalid")),
        ("GET", "?path=/no/such", {}, (404, "not_found")),
        ("PUT", "?path=/tmp/x&mode=9", {}, (400, "invalid")),
        ("PUT", "?path=/tmp/x%00", {}, (400, "invalid")),
        ("PUT", "?path=/tmp/x", {"Transfer-Encoding": "chunked"}, (411, "length_required")),
        ("PUT", "?path=/tmp/x", {"Content-Length": str(2**60)}, (413, "too_large")),
        ("PUT", "?path=/tmp", {}, (400, "invalid")),
        ("PUT", "?path=/etc/passwd/x", {"Content-Length": "1"}, (400, "invalid")),
        ("DELETE", "?path=/no/such", {}, (404, "not_found")),
        ("DELETE", "?path=/", {}, (400, "invalid")),
        ("DELETE", "?path=//tmp/../.", {}, (400, "invalid")),
        ("POST", "?path=/tmp/x", {}, (405, "method_not_allowed")),
    ],
)
def test_what_cannot_be_is_refused_in_words(
    daemon: RunningDaemon, shared: str, method: str, target: str, headers: dict[str, str], expected: tuple[int, str]
) -> None:
    connection = UnixConnection(str(daemon.data.api_socket))
    try:
        connection.putrequest(method, f"/api/v1/sandboxes/{shared}/files{target}")
        sent = {"Authorization": f"Bearer {daemon.token}", **headers}
        if method == "PUT" and not headers:
            sent["Content-Length"] = "0"
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders()
        if "Transfer-Encoding" in headers:
            connection.send(b"1\r\nx\r\n0\r\n\r\n")
        assert problem(connection.getresponse()) == expected
    finally:
        connection.close()
    assert not Path("/tmp/x").exists()


def test_a_client_that_leaves_in_the_middle_leaves_nothing(daemon: RunningDaemon, shared: str, tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"before")
    connection = UnixConnection(str(daemon.data.api_socket))
    connection.putrequest("PUT", f"/api/v1/sandboxes/{shared}/files?path={quote(str(path))}")
    connection.putheader("Authorization", f"Bearer {daemon.token}")
    connection.putheader("Content-Length", str(8 * MIB))
    connection.endheaders(b"x" * MIB)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
    connection.close()
    wait_until(lambda: len(list(tmp_path.iterdir())) == 1)
    assert path.read_bytes() == b"before"


def test_a_file_that_shrinks_while_it_is_read_is_not_taken_for_whole(
    daemon: RunningDaemon, shared: str, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * (64 * MIB))
    with files(daemon, "GET", shared, path) as answer:
        assert answer.read(1000) == b"x" * 1000
        os.truncate(path, 0)
        assert is_cut(answer)
    path.unlink()


@pytest.mark.parametrize("accept", ["*/*", TAR])
def test_an_agent_that_dies_ends_the_answer_so_that_its_reader_sees_it(
    daemon: RunningDaemon, client: Client, tmp_path: Path, accept: str
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * (64 * MIB))
    made = client.create()
    try:
        with files(daemon, "GET", made.id, path, Accept=accept) as answer:
            assert len(answer.read(1000)) == 1000
            agent = int(made.run(["sh", "-c", "echo $PPID"]).stdout)
            os.kill(agent, signal.SIGKILL)
            assert is_cut(answer)
    finally:
        made.destroy()
    path.unlink()


def test_the_daemon_holds_little_of_what_passes_through_it(daemon: RunningDaemon, shared: str, tmp_path: Path) -> None:
    path, piece = tmp_path / "f", os.urandom(MIB)
    Path(f"/proc/{daemon.process.pid}/clear_refs").write_text("5")
    before_kib = peak_kib(daemon)
    with files(daemon, "PUT", shared, path, (piece for _ in range(64)), Content_Length=str(64 * MIB)) as answer:
        assert answer.status == 204
    with files(daemon, "GET", shared, path) as answer:
        while got := answer.read(MIB):
            assert got == piece
    assert peak_kib(daemon) - before_kib < 16 * 1024
    path.unlink()


def peak_kib(daemon: RunningDaemon) -> int:
    match = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{daemon.process.pid}/status").read_text())
    assert match is not None
    return int(match[1])


def test_only_keys_that_may_use_a_sandbox_reach_its_files(
    daemon: RunningDaemon, client: Client, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x")
    looks, uses = client.users.create_key(scope="read").secret, client.users.create_key(scope="exec").secret
    for method, body in (("GET", None), ("PUT", b"y"), ("DELETE", None)):
        with files(daemon, method, sandbox.id, path, body, token=looks) as answer:
            assert problem(answer) == (403, "forbidden")
    with files(daemon, "HEAD", sandbox.id, path, token=looks) as answer:
        assert (answer.status, answer.read()) == (403, b"")
    with files(daemon, "GET", sandbox.id, path, token=uses) as answer:
        assert (answer.status, answer.read()) == (200, b"x")


def test_changes_are_in_the_audit_log_with_their_paths(daemon: RunningDaemon, shared: str, tmp_path: Path) -> None:
    path = tmp_path / "f"
    with files(daemon, "PUT", shared, path, b"x") as answer:
        written = answer.getheader("X-Request-ID")
    with files(daemon, "GET", shared, path) as answer:
        answer.read()
    with files(daemon, "DELETE", shared, path) as answer:
        removed = answer.getheader("X-Request-ID")

    def entries() -> dict[str, tuple[str, str]]:
        with asking(daemon, "GET", "/api/v1/audit?limit=1000") as answer:
            items = json.loads(answer.read())["items"]
        return {each["request_id"]: (each["action"], each["object"]) for each in items}

    wait_until(lambda: {written, removed} <= set(entries()))
    assert entries()[written or ""] == ("write_file", f"{shared} {path}")
    assert entries()[removed or ""] == ("remove_file", f"{shared} {path}")
    assert "read_file" not in {action for action, _ in entries().values()}


def test_sessions_are_listed_and_killed(daemon: RunningDaemon, client: Client) -> None:
    with client.create() as own:
        with asking(daemon, "GET", f"/api/v1/sandboxes/{own.id}/sessions") as answer:
            assert (answer.status, json.loads(answer.read())) == (200, {"items": []})
        with asking(daemon, "DELETE", f"/api/v1/sandboxes/{own.id}/sessions/s99") as answer:
            assert problem(answer) == (404, "not_found")
