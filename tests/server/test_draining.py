"""SIGTERM: what is under way comes to its end, what comes anew is told to come back; and what /readyz says."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.server.event_stream import WAIT_S, following
from tests.server.test_app import UnixConnection, ask


def lines_of(daemon: RunningDaemon, name: str, words: list[str], begun: threading.Event, seen: list[str]) -> None:
    """Run a command and collect the lines of its stream as they come; the last is its end."""
    connection = UnixConnection(str(daemon.data.api_socket))
    headers = {"Authorization": f"Bearer {daemon.token}", "Accept": "application/x-ndjson"}
    try:
        connection.request("POST", f"/api/v1/sandboxes/{name}/exec", json.dumps({"cmd": words}), headers)
        connection.sock.settimeout(WAIT_S)
        answer = connection.getresponse()
        while line := answer.readline():
            told = json.loads(line)
            seen.append(told.get("data") or told.get("code") or told["type"])
            begun.set()
    finally:
        connection.close()


def test_a_running_command_ends_while_new_requests_are_told_to_come_back(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    begun, seen = threading.Event(), list[str]()
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--drain", "60") as daemon, daemon.client() as client, following(daemon) as stream:
            client.create(name="busy")
            words = ["sh", "-c", f"echo begun; read word < {gate}; echo $word"]
            running = threading.Thread(target=lines_of, args=(daemon, "busy", words, begun, seen))
            running.start()
            assert begun.wait(WAIT_S)
            daemon.process.send_signal(signal.SIGTERM)
            daemon.wait_for_event("draining")
            assert [told.kind for told in stream][-1].startswith("sandbox.")

            status, headers, problem = ask(daemon, "GET", "/api/v1/sandboxes", token=daemon.token)
            assert (status, problem["code"], int(headers["retry-after"]) > 0) == (503, "unavailable", True)
            assert "x-request-id" in headers
            assert ask(daemon, "GET", "/livez")[0] == 200
            status, _, ready = ask(daemon, "GET", "/readyz")
            assert (status, ready["status"]) == (503, "not ready")
            assert "stopping" in ready["checks"]["serving"]
            assert daemon.process.poll() is None

            gate.write_text("done\n")
            running.join(WAIT_S)
            assert (seen[-1], "".join(seen[:-1])) == ("exit", "begun\ndone\n")
            assert daemon.process.wait(WAIT_S) == 0
        with running_daemon(data):
            """It removes the sandbox."""


def test_what_does_not_end_in_time_is_told_and_cut_off(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    begun, seen = threading.Event(), list[str]()
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--drain", "1") as daemon, daemon.client() as client:
            client.create(name="busy")
            words = ["sh", "-c", f"echo begun; read word < {gate}"]
            running = threading.Thread(target=lines_of, args=(daemon, "busy", words, begun, seen))
            running.start()
            assert begun.wait(WAIT_S)
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(WAIT_S) == 0
            running.join(WAIT_S)
            assert seen == ["begun\n", "unavailable"]
        with running_daemon(data):
            """It removes the sandbox."""


def test_a_second_signal_waits_for_nobody(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    begun, seen = threading.Event(), list[str]()
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--drain", "3600") as daemon, daemon.client() as client:
            client.create(name="busy")
            words = ["sh", "-c", f"echo begun; read word < {gate}"]
            running = threading.Thread(target=lines_of, args=(daemon, "busy", words, begun, seen))
            running.start()
            assert begun.wait(WAIT_S)
            daemon.process.send_signal(signal.SIGTERM)
            daemon.wait_for_event("draining")
            daemon.process.send_signal(signal.SIGTERM)
            assert daemon.process.wait(WAIT_S) == 0
            running.join(WAIT_S)
        with running_daemon(data):
            """It removes the sandbox."""


def test_a_daemon_that_can_bring_sandboxes_up_is_ready(daemon: RunningDaemon) -> None:
    status, _, ready = ask(daemon, "GET", "/readyz")
    assert (status, ready["status"]) == (200, "ready")
    assert ready["checks"] == dict.fromkeys(("store", "images", "engine", "disk"), "ok")


@pytest.mark.parametrize("missing", ["images", "kernel"])
def test_a_daemon_without_images_is_not_ready_and_says_what_to_do(missing: str) -> None:
    with data_directory() as data:
        if missing == "kernel":
            publish_images(data)
            for path in data.images.glob("kernel-*"):
                shutil.rmtree(path)
        with running_daemon(data) as daemon:
            status, _, ready = ask(daemon, "GET", "/readyz")
            assert (status, ready["status"]) == (503, "not ready")
            assert ready["checks"]["store"] == ready["checks"]["disk"] == "ok"
            assert ready["checks"]["images"] != "ok"
            assert "image" in ready["checks"]["images"]
