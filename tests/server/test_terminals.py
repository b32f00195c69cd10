"""Terminals and piped sessions through WebSockets, with a real agent: what is said, what survives, who is let in."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.server.network import address_of, signed
from tests.server.sockets import WAIT_S, opened, refused
from tests.server.test_app import UnixConnection, ask
from websockets.sync.client import unix_connect

from hearth.sdk.client import Client, Sandbox

MIB = 1024 * 1024


def sessions(daemon: RunningDaemon, sandbox: str) -> dict[str, dict[str, Any]]:
    _, _, answer = ask(daemon, "GET", f"/api/v1/sandboxes/{sandbox}/sessions", token=daemon.token)
    return {each["session_id"]: each for each in answer["items"]}


def wait_for(true: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_terminal_has_its_size_is_resized_and_tells_its_end(daemon: RunningDaemon, shared: str) -> None:
    with opened(daemon, f"{shared}/ws?new=true&rows=40&cols=120&cmd=sh&env=PS1=&env=COLOUR=a=b") as terminal:
        first = terminal.first()
        assert (first["type"], first["tty"], first["running"], first["position"]) == ("session", True, True, 0)
        assert first["argv"] == "sh"
        terminal.type(b'stty size; echo "<$COLOUR>"\n')
        terminal.until(b"40 120\r\n<a=b>")
        terminal.say(type="resize", rows=50, cols=99)
        terminal.type(b"stty size\n")
        terminal.until(b"50 99")
        terminal.type(b"exit 3\n")
        assert terminal.end() == ({"type": "exit", "exit_code": 3}, 1000)
    assert sessions(daemon, shared)[first["session_id"]]["exit_code"] == 3


def test_a_terminal_runs_a_login_shell_unless_told_otherwise(daemon: RunningDaemon, shared: str) -> None:
    with opened(daemon, f"{shared}/ws?new=true") as terminal:
        assert terminal.first()["argv"] in ("bash -l", "sh -l")
        terminal.type(b"stty size; exit\n")
        assert terminal.end()[0]["type"] == "exit"
        assert b"24 80" in terminal.output


def test_input_ends_and_signals_arrive_in_a_piped_session(daemon: RunningDaemon, shared: str) -> None:
    with opened(daemon, f"{shared}/exec/ws") as piped:
        piped.say(cmd=["sh", "-c", "echo err >&2; wc -c"])
        assert piped.first()["tty"] is False
        piped.type(b"x" * 300_000)
        piped.type(b"\xff\x00")
        piped.say(type="eof")
        assert piped.end() == ({"type": "exit", "exit_code": 0}, 1000)
        assert sorted(piped.output.split()) == [b"300002", b"err"]
    with opened(daemon, f"{shared}/exec/ws") as piped:
        piped.say(type="start", cmd=["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"])
        piped.until(b"ready")
        piped.say(type="signal", signal="TERM")
        assert piped.end() == ({"type": "exit", "exit_code": 9}, 1000)


def test_who_leaves_detaches_and_comes_back_where_it_was(daemon: RunningDaemon, shared: str, tmp_path: Path) -> None:
    script = f"echo one; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo two; read line; echo got $line"
    with opened(daemon, f"{shared}/exec/ws") as first:
        first.say(cmd=["sh", "-c", script])
        session_id, position = first.first()["session_id"], first.told[0]["position"]
        first.until(b"one\n")
    received = position + len(first.output)
    wait_for(lambda: not sessions(daemon, shared)[session_id]["attached"])
    (tmp_path / "go").touch()
    with opened(daemon, f"{shared}/exec/ws?session={session_id}") as second:
        assert (second.first()["session_id"], second.told[0]["position"]) == (session_id, 0)
        assert second.until(b"two\n") == b"one\ntwo\n"
    with opened(daemon, f"{shared}/exec/ws?session={session_id}&after={received}") as third:
        assert third.first()["position"] == received
        assert third.until(b"two\n") == b"two\n"
        third.type(b"that\n")
        assert third.end() == ({"type": "exit", "exit_code": 0}, 1000)
        assert third.output == b"two\ngot that\n"


def test_one_client_at_a_time_the_last_one_wins(daemon: RunningDaemon, shared: str) -> None:
    with opened(daemon, f"{shared}/ws?new=true&cmd=sh") as first:
        session_id = first.first()["session_id"]
        with opened(daemon, f"{shared}/ws?session={session_id}&if_detached=true") as polite:
            last, code = polite.end()
            assert (last["type"], last["code"], code) == ("error", "conflict", 4409)
        with opened(daemon, f"{shared}/ws?session={session_id}&rows=33&cols=44") as second:
            assert second.first()["session_id"] == session_id
            last, code = first.end()
            assert (last["type"], last["code"], code) == ("error", "conflict", 4409)
            second.type(b"stty size; exit 4\n")
            assert second.end() == ({"type": "exit", "exit_code": 4}, 1000)
            assert b"33 44" in second.output


def test_without_words_the_newest_terminal_that_is_left_alone_is_taken(daemon: RunningDaemon, client: Client) -> None:
    with client.create() as own:
        with opened(daemon, f"{own.id}/ws?new=true&cmd=sh") as left:
            older = left.first()["session_id"]
        with opened(daemon, f"{own.id}/ws?new=true&cmd=sh") as left:
            newer = left.first()["session_id"]
        wait_for(lambda: not any(each["attached"] for each in sessions(daemon, own.id).values()))
        with opened(daemon, f"{own.id}/ws") as first:
            assert first.first()["session_id"] == newer
            with opened(daemon, f"{own.id}/ws") as second:
                assert second.first()["session_id"] == older
                with opened(daemon, f"{own.id}/ws") as third:
                    assert third.first()["session_id"] not in (newer, older)
                    third.type(b"exit\n")
                    third.end()


def test_a_session_that_is_killed_tells_so(daemon: RunningDaemon, shared: str) -> None:
    with opened(daemon, f"{shared}/exec/ws") as piped:
        piped.say(cmd=["sleep", "600"])
        session_id = piped.first()["session_id"]
        path = f"/api/v1/sandboxes/{shared}/sessions/{session_id}"
        assert ask(daemon, "DELETE", path, token=daemon.token)[0] == 204
        assert piped.end() == ({"type": "exit", "exit_code": 137}, 1000)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("ws?rows=0&cols=80", (400, "invalid")),
        ("ws?rows=40", (400, "invalid")),
        ("ws?session=s1&new=true", (400, "invalid")),
        ("ws?session=s1&cmd=sh", (400, "invalid")),
        ("ws?after=5", (400, "invalid")),
        ("ws?env=1x=2", (400, "invalid")),
        ("ws?colour=red", (400, "invalid")),
        ("exec/ws?if_detached=true", (400, "invalid")),
        ("exec/ws?cmd=sh", (400, "invalid")),
    ],
)
def test_a_wrong_query_is_refused_before_the_upgrade(
    daemon: RunningDaemon, shared: str, target: str, expected: tuple[int, str]
) -> None:
    assert refused(daemon, f"{shared}/{target}") == expected


@pytest.mark.parametrize("change", [{"Upgrade": "h2c"}, {"Sec-WebSocket-Version": "8"}, {"Sec-WebSocket-Key": "short"}])
def test_what_is_no_handshake_is_refused_in_words(daemon: RunningDaemon, shared: str, change: dict[str, str]) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    } | change
    target = f"/api/v1/sandboxes/{shared}/ws"
    connection = UnixConnection(str(daemon.data.api_socket))
    try:
        connection.request("GET", target, headers={"Authorization": f"Bearer {daemon.token}", **headers})
        answer = connection.getresponse()
        problem = json.loads(answer.read())
    finally:
        connection.close()
    assert (answer.status, problem["code"], problem["error"]) == (400, "invalid", "this is a WebSocket")


@pytest.mark.parametrize(
    ("message", "code", "closed"),
    [
        ("ls\n", "invalid", 4400),
        ('{"type":"shout"}', "invalid", 4400),
        ('{"type":"resize","rows":0,"cols":1}', "invalid", 4400),
        ('{"type":"resize","rows":10,"cols":10,"x":1}', "invalid", 4400),
        ('{"type":"signal","signal":"NOPE"}', "invalid", 4400),
        ('{"type":"auth","token":"again"}', "invalid", 4400),
        ("[" * 50_000, "invalid", 4400),
    ],
)
def test_a_message_that_is_none_ends_the_socket_and_not_the_session(
    daemon: RunningDaemon, shared: str, message: str, code: str, closed: int
) -> None:
    with opened(daemon, f"{shared}/exec/ws") as piped:
        piped.say(cmd=["cat"])
        session_id = piped.first()["session_id"]
        piped.connection.send(message)
        last, seen = piped.end()
        assert (last["type"], last["code"], seen) == ("error", code, closed)
        assert "again" not in json.dumps(last)
    assert sessions(daemon, shared)[session_id]["running"]
    ask(daemon, "DELETE", f"/api/v1/sandboxes/{shared}/sessions/{session_id}", token=daemon.token)


@pytest.mark.parametrize(
    ("first", "code", "closed"),
    [
        ({"cmd": []}, "invalid", 4400),
        ({"cmd": ["true"], "tty": True}, "invalid", 4400),
        ({"type": "resize", "rows": 1, "cols": 1}, "invalid", 4400),
        ({"cmd": ["/no/such/program"]}, "start_failed", 4422),
        ({"cmd": ["true"], "cwd": "/no/such/directory"}, "start_failed", 4422),
        ({"cmd": ["true"], "secrets": [{"name": "MISSING"}]}, "not_found", 4404),
    ],
)
def test_what_cannot_be_started_is_told(
    daemon: RunningDaemon, shared: str, first: dict[str, Any], code: str, closed: int
) -> None:
    with opened(daemon, f"{shared}/exec/ws") as piped:
        piped.connection.send(json.dumps(first))
        last, seen = piped.end()
        assert (last["type"], last["code"], seen) == ("error", code, closed)
        assert last["request_id"]


def test_a_session_of_the_other_kind_or_of_none_is_not_given(daemon: RunningDaemon, shared: str) -> None:
    with opened(daemon, f"{shared}/ws?session=s99999") as terminal:
        assert (terminal.end()[0]["code"], terminal.connection.close_code) == ("not_found", 4404)
    with opened(daemon, f"{shared}/exec/ws") as piped:
        piped.say(cmd=["cat"])
        session_id = piped.first()["session_id"]
        for more, code in (("&if_detached=true", 4409), ("", 4400)):
            with opened(daemon, f"{shared}/ws?session={session_id}{more}") as terminal:
                assert terminal.end()[1] == code
        piped.say(type="eof")
        assert piped.end() == ({"type": "exit", "exit_code": 0}, 1000)


def test_a_sandbox_that_is_destroyed_ends_its_terminals(daemon: RunningDaemon, client: Client) -> None:
    made = client.create()
    with opened(daemon, f"{made.id}/exec/ws") as piped:
        piped.say(cmd=["cat"])
        piped.first()
        made.destroy()
        last, closed = piped.end()
        assert (last["type"], last["code"], closed) == ("error", "not_found", 4404)


def test_a_machine_that_dies_ends_its_terminals(daemon: RunningDaemon, client: Client) -> None:
    with client.create() as made, opened(daemon, f"{made.id}/exec/ws") as piped:
        piped.say(cmd=["cat"])
        piped.first()
        os.kill(int(made.run(["sh", "-c", "echo $PPID"]).stdout), signal.SIGKILL)
        last, closed = piped.end()
        assert (last["type"], last["code"], closed) == ("error", "not_found", 4404)


def test_a_signed_handshake_is_as_good_as_a_token_and_a_signed_upload_stays_short(
    daemon: RunningDaemon, client: Client, shared: str, tmp_path: Path
) -> None:
    made = client.users.create_key(scope="exec", kind="hmac")
    target = f"/api/v1/sandboxes/{shared}/exec/ws"
    with opened(
        daemon, f"{shared}/exec/ws", token=None, headers=signed(made.key.id, made.secret, "GET", target)
    ) as piped:
        piped.say(cmd=["true"])
        assert piped.end() == ({"type": "exit", "exit_code": 0}, 1000)
    target = f"/api/v1/sandboxes/{shared}/files?path={tmp_path}/f"
    for body, status in ((b"short", 204), (b"x" * (MIB + 1), 413)):
        connection = UnixConnection(str(daemon.data.api_socket))
        try:
            with contextlib.suppress(BrokenPipeError):  # it is refused by its length, before all of it was sent
                connection.request("PUT", target, body, signed(made.key.id, made.secret, "PUT", target, body))
            assert connection.getresponse().status == status
        finally:
            connection.close()
    assert (tmp_path / "f").read_bytes() == b"short"


def test_messages_that_are_too_long_or_no_text_end_the_socket(daemon: RunningDaemon, shared: str) -> None:
    with opened(daemon, f"{shared}/exec/ws") as piped:
        piped.connection.send("x" * (MIB + 1))
        assert piped.end()[1] == 1009
    with opened(daemon, f"{shared}/exec/ws", token=None) as piped:
        piped.say(type="auth", token="x" * 5000)
        assert piped.end()[1] == 1009
    with opened(daemon, f"{shared}/exec/ws") as piped:
        piped.connection.send(b"\xff\xfe", text=True)
        assert piped.end()[1] == 1007


def test_a_client_that_does_not_read_slows_the_process_and_loses_nothing(daemon: RunningDaemon, shared: str) -> None:
    count = 3_000_000
    Path(f"/proc/{daemon.process.pid}/clear_refs").write_text("5")
    before_kib = peak_kib(daemon)
    with unix_connect(
        str(daemon.data.api_socket),
        f"ws://localhost/api/v1/sandboxes/{shared}/exec/ws",
        additional_headers={"Authorization": f"Bearer {daemon.token}"},
        compression=None,
        max_queue=1,
    ) as connection:
        connection.send(json.dumps({"cmd": ["seq", str(count)]}))
        started = json.loads(connection.recv(timeout=WAIT_S))["session_id"]
        for _ in range(20):  # it would be done by now if anybody took what it writes
            assert sessions(daemon, shared)[started]["running"]
            time.sleep(0.05)
        pieces = []
        for message in connection:
            if isinstance(message, str):
                assert json.loads(message) == {"type": "exit", "exit_code": 0}
            else:
                pieces.append(message)
    assert b"".join(pieces) == b"".join(b"%d\n" % number for number in range(1, count + 1))
    assert peak_kib(daemon) - before_kib < 16 * 1024


def test_a_flood_of_input_waits_for_the_process(daemon: RunningDaemon, shared: str, tmp_path: Path) -> None:
    Path(f"/proc/{daemon.process.pid}/clear_refs").write_text("5")
    before_kib = peak_kib(daemon)
    with opened(daemon, f"{shared}/exec/ws") as piped:
        piped.say(cmd=["sh", "-c", "sleep 1; wc -c"])
        piped.first()
        for _ in range(32):
            piped.type(b"x" * MIB)
        for _ in range(20_000):
            piped.type(b"y")
        piped.say(type="eof")
        assert piped.end()[0] == {"type": "exit", "exit_code": 0}
        assert int(piped.output) == 32 * MIB + 20_000
    assert peak_kib(daemon) - before_kib < 16 * 1024


def peak_kib(daemon: RunningDaemon) -> int:
    match = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{daemon.process.pid}/status").read_text())
    assert match is not None
    return int(match[1])


def test_a_token_comes_in_the_header_the_address_or_the_first_message(daemon: RunningDaemon, shared: str) -> None:
    with opened(daemon, f"{shared}/exec/ws?token={daemon.token}", token=None) as piped:
        piped.say(cmd=["true"])
        assert piped.end()[0]["type"] == "exit"
    with opened(daemon, f"{shared}/exec/ws", token=None, headers={"Origin": "https://elsewhere.example.org"}) as piped:
        piped.say(type="auth", token=daemon.token)
        piped.say(cmd=["true"])
        assert piped.end()[0]["type"] == "exit"
    assert refused(daemon, f"{shared}/ws?token={daemon.token}", token="hk_" + "0" * 64) == (401, "unauthenticated")


def test_the_first_message_is_judged_as_a_header_is(daemon: RunningDaemon, client: Client, sandbox: Sandbox) -> None:
    looks = client.users.create_key(scope="read").secret
    stranger = client.users.create("stranger-at-the-socket").secret
    ended = client.users.create_key(scope="exec")
    client.users.revoke_key(ended.key.id)
    with client.create() as other:
        elsewhere = client.users.create_key(scope="exec", sandbox=other.id).secret
        cases = (
            ({"type": "auth", "token": "hk_" + "0" * 64}, 401, "unauthenticated"),
            ({"type": "auth", "token": ended.secret}, 401, "unauthenticated"),
            ({"type": "auth", "token": looks}, 403, "forbidden"),
            ({"type": "auth", "token": stranger}, 404, "not_found"),
            ({"type": "auth", "token": elsewhere}, 404, "not_found"),
        )
        for message, status, code in cases:
            with opened(daemon, f"{sandbox.id}/ws", token=None) as terminal:
                terminal.say(**message)
                last, closed = terminal.end()
                assert (last["type"], last["code"], closed) == ("error", code, 4000 + status)
            assert refused(daemon, f"{sandbox.id}/ws", token=message["token"]) == (status, code)
            assert refused(daemon, f"{sandbox.id}/ws?token={message['token']}", token=None) == (status, code)
        for text in ('{"cmd":["true"]}', '{"type":"auth"}', "hello"):
            with opened(daemon, f"{sandbox.id}/ws", token=None) as terminal:
                terminal.connection.send(text)
                assert terminal.end()[1] == 4401
        with opened(daemon, f"{sandbox.id}/ws", token=None) as terminal:
            terminal.type(b"auth")
            assert terminal.end()[1] == 4401
        with opened(daemon, "no-such-sandbox/ws", token=None) as terminal:
            terminal.say(type="auth", token=daemon.token)
            assert terminal.end()[1] == 4404


def test_who_never_says_who_it_is_is_sent_away(daemon: RunningDaemon, shared: str) -> None:
    with opened(daemon, f"{shared}/ws", token=None) as terminal:
        last, closed = terminal.end()
        assert (last["code"], closed) == ("unauthenticated", 4401)


def test_opening_is_in_the_audit_log(daemon: RunningDaemon, shared: str) -> None:
    with opened(daemon, f"{shared}/ws?cmd=true&new=true") as terminal:
        terminal.end()
        assert terminal.connection.response is not None
        request_id = terminal.connection.response.headers["X-Request-ID"]

    def found() -> list[dict[str, Any]]:
        _, _, page = ask(daemon, "GET", "/api/v1/audit?limit=1000", token=daemon.token)
        return [each for each in page["items"] if each["request_id"] == request_id]

    wait_for(found)
    assert [(each["action"], each["status"], each["object"]) for each in found()] == [("open_terminal", 101, shared)]


def test_an_idle_terminal_lets_go_and_the_next_input_finds_the_same_session_and_what_it_missed() -> None:
    with data_directory() as data:
        publish_images(data)
        # Long enough for an answer: what comes after it is shown with the next input only.
        words = ("--terminal-idle", "3s", "--log-level", "debug", "--rate", "use=1/2", "--listen", "127.0.0.1:0")
        with running_daemon(data, *words) as daemon, daemon.client() as client:
            made = client.create(name="idle")
            with opened(daemon, f"idle/exec/ws?token={daemon.token}", token=None) as piped:
                piped.say(
                    cmd=["sh", "-c", f"echo one; while [ ! -e {data.root}/go ]; do sleep 0.02; done; echo two; cat"]
                )
                session_id = piped.first()["session_id"]
                piped.until(b"one\n")
                daemon.wait_for_event("an idle terminal lets its sandbox go")
                wait_for(lambda: not sessions(daemon, "idle")[session_id]["attached"])
                (data.root / "go").touch()
                with opened(daemon, f"idle/exec/ws?session={session_id}&if_detached=true") as other:
                    assert other.end()[1] == 4409
                piped.type(b"three\n")
                assert piped.until(b"three\n") == b"one\ntwo\nthree\n"
                piped.say(type="eof")
                assert piped.end() == ({"type": "exit", "exit_code": 0}, 1000)
            address = address_of(daemon)
            statuses = {refused_or_open(daemon, address, "idle/ws?new=true&cmd=true") for _ in range(4)}
            assert statuses == {None, (429, "rate_limited")}
            with opened(daemon, "idle/ws", token=None, address=address) as terminal:
                terminal.say(type="auth", token=daemon.token)
                last, closed = terminal.end()
                assert (last["code"], closed) == ("rate_limited", 4429)
            with opened(daemon, "idle/exec/ws") as piped:
                piped.say(cmd=["cat"])
                piped.first()
                daemon.process.terminate()
                last, closed = piped.end()
                assert (last["code"], closed) == ("unavailable", 1001)
            assert daemon.process.wait(WAIT_S) == 0
            assert "requests are cut off" not in daemon.log_file.read_text()
            assert daemon.token not in daemon.log_file.read_text()
            assert made.id in daemon.log_file.read_text()
        with running_daemon(data):  # which ends what the other has left
            pass


def refused_or_open(daemon: RunningDaemon, address: tuple[str, int], target: str) -> tuple[int, str] | None:
    try:
        return refused(daemon, target, address=address)
    except AssertionError:
        return None
