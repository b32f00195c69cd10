"""A terminal that stays open while its machine sleeps, and files of some size into a machine and out of it."""

from __future__ import annotations

import hashlib
import os
from urllib.parse import quote

from tests.server.daemon import RunningDaemon
from tests.server.sockets import opened
from tests.server.test_app import UnixConnection

from hearth.sdk.client import Client, Sandbox

MIB = 1024 * 1024
SIZE = 64 * MIB


def test_a_terminal_goes_on_after_its_machine_slept(house: RunningDaemon, client: Client) -> None:
    with client.create() as own, opened(house, f"{own.id}/ws?new=true&cmd=sh&env=PS1=") as terminal:
        session_id = terminal.first()["session_id"]
        terminal.type(b"stty -echo; mark=kept; printf '[%s]' begun\n")
        terminal.until(b"[begun]")
        before = len(terminal.output)

        own.pause()
        terminal.type(b"printf '[%s paused]' $mark\n")
        terminal.until(b"[kept paused]")

        own.stop()
        assert client.get(own.id).view.heat == "cold"
        terminal.type(b"printf '[%s cold]' $mark\n")
        terminal.until(b"[kept cold]")
        assert client.get(own.id).view.heat == "hot"
        assert terminal.output[before:] == b"[kept paused][kept cold]"

        own.stop()
        own.run(["true"])  # somebody else wakes it: the terminal is there again by itself
        terminal.say(type="resize", rows=31, cols=97)
        terminal.type(b"stty size; exit 5\n")
        assert terminal.end() == ({"type": "exit", "exit_code": 5}, 1000)
        assert b"31 97" in terminal.output
        with opened(house, f"{own.id}/ws?session={session_id}") as again:
            assert again.end()[0] == {"type": "exit", "exit_code": 5}
            assert again.output == terminal.output


def test_a_file_of_64_mib_goes_in_and_comes_out(house: RunningDaemon, sandbox: Sandbox) -> None:
    piece = os.urandom(MIB)
    digest = hashlib.sha256(piece * (SIZE // MIB)).hexdigest()
    target = f"/api/v1/sandboxes/{sandbox.id}/files?path={quote('/var/tmp/sent')}"
    headers = {"Authorization": f"Bearer {house.token}", "Content-Length": str(SIZE)}
    connection = UnixConnection(str(house.data.api_socket))
    try:
        connection.request("PUT", target, (piece for _ in range(SIZE // MIB)), headers)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (204, b"")
        assert sandbox.run(["sha256sum", "/var/tmp/sent"]).stdout.split()[0] == digest
        connection.request("GET", target, headers={"Authorization": headers["Authorization"]})
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("X-File-Size")) == (200, str(SIZE))
        received = hashlib.sha256()
        while data := answer.read(MIB):
            received.update(data)
        assert received.hexdigest() == digest
        connection.request("DELETE", target, headers={"Authorization": headers["Authorization"]})
        assert connection.getresponse().status == 204
    finally:
        connection.close()
