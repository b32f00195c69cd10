"""Calls about jobs by a real daemon to a real web server: signed, in order, again until heard, nowhere else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest
from tests.server.daemon import RunningDaemon, data_directory, publish_images, run_cli, running_daemon
from tests.server.test_provision import wait_for

from hearth.config import DataDirectory
from hearth.errors import Forbidden, InvalidInput

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
MIB = 1 << 20
GB = 1 / 1024
WAIT_S = 60.0


@dataclass
class Receiver:
    """What came, in its order; what is answered comes from ``answers`` first, then it is 204, once ``answering``."""

    port: int = 0
    answering: threading.Event = field(default_factory=threading.Event)
    answers: list[int] = field(default_factory=list)
    came: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    news: threading.Condition = field(default_factory=threading.Condition)

    def url(self, path: str = "/hook?token=s3cret-in-the-url", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def wait(self, count: int) -> None:
        with self.news:
            assert self.news.wait_for(lambda: len(self.came) >= count, WAIT_S), self.kinds()

    def kinds(self) -> list[str]:
        return [json.loads(body)["type"] for _, _, body in self.came]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        receiver = cast(Server, self.server).receiver
        body = self.rfile.read(int(self.headers["content-length"]))
        with receiver.news:
            status = receiver.answers.pop(0) if receiver.answers else 204
            receiver.came.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            receiver.news.notify_all()
        receiver.answering.wait(WAIT_S)
        with contextlib.suppress(ConnectionError):
            self.answer(status)

    def answer(self, status: int) -> None:
        receiver = cast(Server, self.server).receiver
        self.send_response(status)
        if status == 302:
            self.send_header("location", receiver.url("/elsewhere"))
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = False
    receiver: Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Server(("127.0.0.1", 0), Handler)
    server.receiver = Receiver(port=server.server_address[1])
    server.receiver.answering.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.receiver
    finally:
        server.receiver.answering.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    file = tmp_path / "a.raw"
    file.write_bytes(os.urandom(MIB))
    return file


@pytest.fixture
def start(image: Path) -> Callable[..., contextlib.AbstractContextManager[RunningDaemon]]:
    def run(
        data: DataDirectory, receiver: Receiver, *words: str, networks: Sequence[str] = ("127.0.0.0/8",)
    ) -> contextlib.AbstractContextManager[RunningDaemon]:
        hosts = [word for host in ("127.0.0.1", "localhost") for word in ("--webhook-hosts", f"{host}:{receiver.port}")]
        inner = [word for network in networks for word in ("--webhook-networks", network)]
        given = ("--image-directories", str(image.parent), *hosts, *inner, *words)
        return running_daemon(data, *given, prefix=("env", f"HEARTH_WEBHOOK_SECRET={SECRET}"))

    return run


Start = Callable[..., contextlib.AbstractContextManager[RunningDaemon]]


def is_signed(headers: dict[str, str], body: bytes) -> bool:
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    is_fresh = abs(int(headers["webhook-timestamp"]) - time.time()) < 300
    return is_fresh and hmac.compare_digest(expected, headers["webhook-signature"])


def logged(daemon: RunningDaemon, event: str, **more: object) -> dict[str, Any]:
    expected = {"event": event, **more}.items()
    deadline_s = time.monotonic() + WAIT_S
    while not (found := [entry for entry in daemon.log() if expected <= entry.items()]):
        assert time.monotonic() < deadline_s, event
        time.sleep(0.02)
    return found[0]


def test_the_steps_and_the_end_of_a_job_are_told_signed_and_in_order_until_they_are_heard(
    start: Start, receiver: Receiver, image: Path
) -> None:
    receiver.answers = [500, 204, 429, 204]
    with data_directory() as data:
        publish_images(data)
        with start(data, receiver) as daemon:
            words = ["provision", f"file://{image}", "vm", "--size", "8M", "--type", "raw"]
            ran = run_cli(daemon.environment, *words, "--webhook", receiver.url(), "--webhook-progress")
            assert ran.returncode == 0, ran.stderr
            receiver.wait(8)
            logged(daemon, "webhook delivered", kind="job.completed")
            ids = [headers["webhook-id"] for _, headers, _ in receiver.came]
            assert (ids[0], ids[2]) == (ids[1], ids[3])
            kinds = [
                kind for kind, this, last in zip(receiver.kinds(), ids, [None, *ids], strict=False) if this != last
            ]
            assert kinds == ["job.running", *["job.progress"] * 4, "job.completed"]
            assert len(set(ids)) == len(kinds)
            assert all(is_signed(headers, body) for _, headers, body in receiver.came)
            last = json.loads(receiver.came[-1][2])
            assert (last["data"]["job_id"], last["data"]["status"]) == (ran.stdout.decode().strip(), "completed")
            assert (last["id"], last["data"]["volume_path"].endswith("/vm/disk")) == (ids[-1], True)
            assert logged(daemon, "webhook failed; it is sent again")["error"] == "HTTP 500"
            text = daemon.log_file.read_text()
            assert SECRET not in text and "s3cret-in-the-url" not in text


def test_what_was_not_heard_is_told_by_the_next_daemon(start: Start, receiver: Receiver, image: Path) -> None:
    receiver.answers = [503] * 1000
    with data_directory() as data:
        publish_images(data)
        with start(data, receiver) as daemon, daemon.client() as client:
            url = f"file://{image}"
            job = client.provisioning.start(url, "vm", 8 * GB, image_type="raw", webhook_url=receiver.url()).job
            receiver.wait(1)
            wait_for(client, job.job_id, "completed")
            daemon.process.send_signal(signal.SIGKILL)
            daemon.process.wait(WAIT_S)
        receiver.answers = [503]
        with start(data, receiver) as daemon:
            logged(daemon, "webhook delivered")
        assert set(receiver.kinds()) == {"job.completed"}
        assert len({headers["webhook-id"] for _, headers, _ in receiver.came}) == 1


def test_a_call_that_its_daemon_was_killed_in_is_made_again_at_once(
    start: Start, receiver: Receiver, image: Path
) -> None:
    with data_directory() as data:
        publish_images(data)
        with start(data, receiver) as daemon, daemon.client() as client:
            receiver.answering.clear()
            client.provisioning.start(f"file://{image}", "vm", 8 * GB, image_type="raw", webhook_url=receiver.url())
            begun = stopped_in_a_call(daemon, receiver)
            daemon.process.send_signal(signal.SIGKILL)
            daemon.process.wait(WAIT_S)
            receiver.answering.set()
        with start(data, receiver) as daemon:
            assert logged(daemon, "webhooks of an earlier run are sent again")["count"] == 1
            assert logged(daemon, "webhook delivered")["tries"] == begun
        assert len({headers["webhook-id"] for _, headers, _ in receiver.came}) == 1


def stopped_in_a_call(daemon: RunningDaemon, receiver: Receiver) -> int:
    """Stop a daemon that waits for an answer, whose patience is short; tells how many calls it has begun."""
    begun = 1
    while True:
        receiver.wait(begun)
        daemon.process.send_signal(signal.SIGSTOP)
        with contextlib.closing(sqlite3.connect(daemon.data.database)) as database:
            held = database.execute("SELECT attempts FROM deliveries WHERE lease_owner IS NOT NULL").fetchone()
        if held is not None and held[0] == begun - 1 == len(receiver.came) - 1:
            return begun
        daemon.process.send_signal(signal.SIGCONT)
        begun = len(receiver.came) + 1


def test_a_job_that_failed_is_told_with_its_error(start: Start, receiver: Receiver, image: Path) -> None:
    with data_directory() as data:
        publish_images(data)
        with start(data, receiver) as daemon, daemon.client() as client:
            given = (f"file://{image}.missing", "vm", 8 * GB)
            client.provisioning.start(*given, image_type="raw", webhook_url=receiver.url("/a"))
            receiver.wait(1)
            told = json.loads(receiver.came[0][2])
            assert (told["type"], told["data"]["error"]["code"]) == ("job.failed", "not_found")


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "http://127.0.0.1/",
        "https://example.org/",
        "ftp://127.0.0.1/",
        "http://user@127.0.0.1/",
        "x",
        "http://127.0.0.1:1/ a",
    ],
)
def test_a_url_that_leads_elsewhere_is_refused_with_the_order(
    start: Start, receiver: Receiver, image: Path, shared_daemon: RunningDaemon, url: str
) -> None:
    with shared_daemon.client() as client:
        with pytest.raises((InvalidInput, Forbidden), match="webhook"):
            client.provisioning.start(f"file://{image}", "vm", 8 * GB, image_type="raw", webhook_url=url)
        assert not client.provisioning.volumes()


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with data_directory() as data:
        publish_images(data)
        words = ("--webhook-hosts", "127.0.0.1:9")
        with running_daemon(data, *words, prefix=("env", f"HEARTH_WEBHOOK_SECRET={SECRET}")) as daemon:
            yield daemon


def test_a_listed_name_with_a_private_address_is_not_called_and_a_redirect_not_followed(
    start: Start, receiver: Receiver, image: Path
) -> None:
    with data_directory() as data:
        publish_images(data)
        url = f"file://{image}"
        with start(data, receiver, networks=()) as daemon, daemon.client() as client:
            client.provisioning.start(
                url, "vm", 8 * GB, image_type="raw", webhook_url=receiver.url(host="localhost")
            ).filled()
            assert logged(daemon, "webhook failed; it is sent again")["delivery"]
            assert receiver.came == []
        receiver.answers = [302]
        with start(data, receiver, "--webhook-give-up", "1s") as daemon, daemon.client() as client:
            assert logged(daemon, "webhook given up: it gets nothing more")["error"] == "HTTP 302"
            assert [path for path, _, _ in receiver.came] == ["/hook?token=s3cret-in-the-url"]


def test_without_a_secret_nobody_can_be_called(image: Path) -> None:
    with data_directory() as data:
        publish_images(data)
        words = ("--image-directories", str(image.parent), "--webhook-hosts", "127.0.0.1:9")
        with running_daemon(data, *words) as daemon, daemon.client() as client:
            given = (f"file://{image}", "vm", 8 * GB)
            with pytest.raises(InvalidInput, match="webhook_secret"):
                client.provisioning.start(*given, image_type="raw", webhook_url="http://127.0.0.1:9/")
