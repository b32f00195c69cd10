"""Two daemons on one PostgreSQL, one S3 server: jobs change hands, are cancelled from afar, outlive their database."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import obstore
import pytest
from tests.postgresql import Server, connected, running_server
from tests.provisioning.held import HeldTool
from tests.redis_server import RedisServer, redis_server
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.server.event_stream import following
from tests.server.gate import Gate, gate
from tests.server.test_app import Answer, ask
from tests.server.test_provision import content_of, wait_for

from hearth.api.event_schemas import JobView
from hearth.bench.row import Skipped
from hearth.bench.s3_server import S3Server, s3_server
from hearth.config import DataDirectory

pytestmark = [pytest.mark.slow, pytest.mark.daemon, pytest.mark.postgresql]

MIB = 1 << 20
GIB = 1 << 30
LEASE, LONG_LEASE = "2s", "1h"
"""The long one for jobs that nobody is to take over, however long the host stands still."""
IMAGE_BYTES = 128 * MIB
HELD_AFTER_BYTES = 2 * MIB
WAIT_S = 60.0
ROUNDS = 8


@dataclass(frozen=True, kw_only=True)
class Storage:
    """An S3 server with one golden image in it: ``content`` is the file that it was made of."""

    server: S3Server
    bucket: str
    content: Path

    @property
    def url(self) -> str:
        return f"s3://{self.bucket}/golden.qcow2"

    def options(self, port: int) -> Sequence[str]:
        return ("--s3-endpoint", f"http://127.0.0.1:{port}", "--s3-bucket", self.bucket)

    @property
    def keys(self) -> Sequence[str]:
        """A program that gives a daemon the keys in its environment: there are no flags for them."""
        return ("env", f"MINIO_ACCESS_KEY={self.server.access_key}", f"MINIO_SECRET_KEY={self.server.secret_key}")


@pytest.fixture(scope="module", autouse=True)
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage | str]:
    """For the whole module, since the client library's threads stay once they are there."""
    root = tmp_path_factory.mktemp("golden")
    try:
        with s3_server() as server:
            bucket = f"golden-{secrets.token_hex(6)}"
            server.make_bucket(bucket)
            # Text of numbers: it takes a moment to be decompressed, and is many times smaller before.
            block = b"".join(f"{number:08x}".encode() for number in range(MIB // 8))
            content = root / "golden.raw"
            with content.open("wb") as file:
                for number in range(IMAGE_BYTES // MIB):
                    file.write(hashlib.sha256(str(number).encode()).digest() + block[32:])
            image = root / "golden.qcow2"
            subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", content, image], check=True)
            obstore.put(server.store(bucket), "golden.qcow2", image)
            digest = hashlib.sha256(image.read_bytes()).hexdigest()
            obstore.put(server.store(bucket), "golden.qcow2.sha256", f"{digest}  golden.qcow2\n".encode())
            assert image.stat().st_size > 2 * HELD_AFTER_BYTES
            yield Storage(server=server, bucket=bucket, content=content)
    except Skipped as error:
        yield str(error)


@pytest.fixture
def golden(storage: Storage | str) -> Storage:
    if isinstance(storage, str):
        pytest.skip(storage)
    return storage


@pytest.fixture
def held(golden: Storage) -> Iterator[Gate]:
    """A line to the S3 server through which some of the image comes before it is opened."""
    parts = urlsplit(golden.server.endpoint)
    with gate(parts.hostname or "", parts.port or 80, HELD_AFTER_BYTES) as made:
        yield made


@dataclass(frozen=True, kw_only=True)
class House:
    """What two daemons have in common."""

    url: str
    options: Sequence[str]
    keys: Sequence[str]
    redis: RedisServer | None = None

    @contextlib.contextmanager
    def daemon(
        self, data: DataDirectory, *, lease: str = LONG_LEASE, tool: Sequence[str] = ()
    ) -> Iterator[RunningDaemon]:
        words = ("--database", self.url, "--provision-lease", lease, *self.options)
        redis = () if self.redis is None else (f"REDIS_URL={self.redis.url}",)
        with running_daemon(data, *words, prefix=(*self.keys, *redis, *tool)) as running:
            yield running

    def row(self, job_id: str) -> tuple[str, int, str | None]:
        """State, attempts and lease's owner, past all daemons."""
        with connected(self.url) as connection:
            found = connection.execute(
                "SELECT state, attempt, lease_owner FROM jobs WHERE id = %s", [job_id]
            ).fetchone()
        assert found is not None
        return found[0], found[1], found[2]

    def jobs(self) -> list[str]:
        """The ids of all jobs for volumes, past all daemons."""
        with connected(self.url) as connection:
            return [row[0] for row in connection.execute("SELECT id FROM jobs WHERE kind = 'volume.provision'")]


@pytest.fixture
def house(postgresql: Server, golden: Storage, held: Gate) -> Iterator[House]:
    with postgresql.database() as url:
        yield House(url=url, options=golden.options(held.port), keys=golden.keys)


@pytest.fixture
def directories() -> Iterator[tuple[DataDirectory, DataDirectory]]:
    with data_directory() as first, data_directory() as second:
        for each in (first, second):
            publish_images(each)
        yield first, second


def start(daemon: RunningDaemon, golden: Storage, *, mode: str = "copy") -> str:
    with daemon.client() as client:
        return client.provisioning.start(golden.url, "vm", IMAGE_BYTES / GIB, mode=mode).job.job_id


def of(daemon: RunningDaemon, job_id: str, *statuses: str) -> JobView:
    with daemon.client() as client:
        return wait_for(client, job_id, *statuses)


def made(data: DataDirectory) -> list[str]:
    """Volumes, and those that are being made."""
    return sorted(path.name for path in (data.golden_volumes / "volumes").iterdir())


def is_whole(volume: JobView, golden: Storage, scratch: Path) -> bool:
    return content_of(volume, "raw", scratch) == golden.content.read_bytes()


@pytest.mark.parametrize("stage", ["downloading", pytest.param("populating", marks=pytest.mark.root)])
def test_a_killed_daemons_job_is_done_by_the_other_and_what_it_left_is_swept_when_it_comes_back(
    house: House,
    golden: Storage,
    held: Gate,
    directories: tuple[DataDirectory, DataDirectory],
    tmp_path: Path,
    stage: str,
) -> None:
    first, second = directories
    with contextlib.ExitStack() as stack:
        tool = HeldTool(tmp_path) if stage == "populating" else None
        gate = None if tool is None else stack.enter_context(tool.holding("convert"))
        victim = stack.enter_context(house.daemon(first, lease=LEASE, tool=() if tool is None else tool.prefix))
        job_id = start(victim, golden)
        assert held.passed.wait(WAIT_S)  # it has the job, and is in the middle of the image
        if gate is not None:
            held.open()
            gate.wait_until_reached()
        holder = house.row(job_id)[2]
        victim.process.kill()
        victim.process.wait(WAIT_S)
        assert house.row(job_id) == ("running", 1, holder)
        left = [name for name in made(first) if name != "vm"]
        assert (len(left), "vm" in made(first)) == ((1 if stage == "populating" else 0), False)
        with house.daemon(second) as survivor:
            held.open()
            done = of(survivor, job_id, "completed", "failed")
            assert (done.status, done.attempts, done.error) == ("completed", 2, None)
            assert is_whole(done, golden, tmp_path)
            assert made(second) == ["vm"]
            with house.daemon(first) as back:
                deadline_s = time.monotonic() + WAIT_S
                while made(first):
                    assert time.monotonic() < deadline_s, f"still there: {made(first)}"
                    time.sleep(0.05)
                assert of(back, job_id, "completed").attempts == 2


def test_a_daemon_that_slept_past_its_lease_leaves_the_job_to_who_took_it(
    house: House, golden: Storage, held: Gate, directories: tuple[DataDirectory, DataDirectory], tmp_path: Path
) -> None:
    first, second = directories
    with house.daemon(first, lease=LEASE) as sleeper:
        job_id = start(sleeper, golden)
        assert held.passed.wait(WAIT_S)
        with contextlib.ExitStack() as stack:
            sleeper.process.send_signal(signal.SIGSTOP)
            try:
                other = stack.enter_context(house.daemon(second))
                held.open()
                done = of(other, job_id, "completed", "failed")
            finally:
                sleeper.process.send_signal(signal.SIGCONT)
            assert (done.status, done.attempts) == ("completed", 2)
            assert is_whole(done, golden, tmp_path)
            sleeper.wait_for_event("volume not made")
            assert made(first) == []
            assert house.row(job_id)[:2] == ("completed", 2)


@pytest.mark.parametrize("is_dead", [False, True])
def test_a_job_is_cancelled_at_another_daemon_than_the_one_that_works_on_it(
    house: House, golden: Storage, held: Gate, directories: tuple[DataDirectory, DataDirectory], is_dead: bool
) -> None:
    first, second = directories
    with house.daemon(first, lease=LEASE if is_dead else LONG_LEASE) as worker:
        job_id = start(worker, golden)
        assert held.passed.wait(WAIT_S)
        if is_dead:
            worker.process.kill()
            worker.process.wait(WAIT_S)
        with house.daemon(second) as other, other.client() as client:
            client.events.cancel(job_id)
            assert house.row(job_id) == ("cancelled", 2 if is_dead else 1, None)
            job = client.events.job(job_id)
            assert (job.status, job.volume_path) == ("cancelled", None)
            assert (made(first), made(second)) == ([], [])


def test_who_follows_a_job_at_another_daemon_sees_its_end(
    house: House, golden: Storage, held: Gate, directories: tuple[DataDirectory, DataDirectory]
) -> None:
    first, second = directories
    with house.daemon(first) as worker, house.daemon(second) as other:
        job_id = start(worker, golden)
        assert held.passed.wait(WAIT_S)
        with following(other, f"/api/v1/jobs/{job_id}/events") as stream:
            held.open()
            last = stream.until("job.completed")[-1]
            assert last.data["subject"] == job_id


def test_progress_at_another_daemon_comes_by_redis_and_nothing_is_lost_with_it(
    house: House, golden: Storage, held: Gate, directories: tuple[DataDirectory, DataDirectory]
) -> None:
    first, second = directories
    with redis_server() as redis:
        both = replace(house, redis=redis)
        with both.daemon(first) as worker, both.daemon(second) as other:
            job_id = start(worker, golden)
            assert held.passed.wait(WAIT_S)
            with following(other, f"/api/v1/jobs/{job_id}/events") as stream:
                for told in stream:
                    progress = told.data["data"]["progress"]
                    if progress["stage"] == "downloading" and progress["bytes_processed"]:
                        break
                assert progress["bytes_total"] > progress["bytes_processed"]
                assert of(other, job_id, "running").progress.bytes_total == progress["bytes_total"]
                redis.stop()
                held.open()
                stream.until("job.completed")
            for each in (worker, other):
                each.wait_for_event("Redis is away: daemons go on without notes of each other")
            redis.start()
            deadline_s = time.monotonic() + WAIT_S
            while not any(entry["event"] == "Redis is back" for entry in other.log()):
                assert time.monotonic() < deadline_s
                time.sleep(0.1)
            away = [entry for entry in other.log() if entry["event"].startswith("Redis is away")]
            assert len(away) == 1


def at_both(daemons: Sequence[RunningDaemon], body: dict[str, object], **headers: str) -> list[Answer]:
    """Send the same order to all daemons, twice to each, in the same moment."""
    ready = threading.Barrier(2 * len(daemons))

    def send(daemon: RunningDaemon) -> Answer:
        ready.wait(WAIT_S)
        data = json.dumps(body).encode()
        return ask(daemon, "POST", "/api/v1/provision", data, token=daemon.token, **headers)

    with ThreadPoolExecutor(2 * len(daemons)) as threads:
        return list(threads.map(send, [*daemons, *daemons]))


def test_of_one_order_that_two_daemons_get_in_the_same_moment_comes_one_job(
    house: House, golden: Storage, held: Gate, directories: tuple[DataDirectory, DataDirectory], tmp_path: Path
) -> None:
    key = tmp_path / "master.key"
    key.write_text(f"hearth-master-key-1:{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
    key.chmod(0o600)
    first, second = directories
    both = replace(house, options=(*house.options, "--master-key", str(key)))
    with both.daemon(first) as one, both.daemon(second) as other, other.client() as client:
        body: dict[str, object] = {"image_url": golden.url, "volume_size_gb": IMAGE_BYTES / GIB, "image_type": "qcow2"}
        made_of: dict[str, str] = {}
        for number in range(ROUNDS):
            name = f"vm{number}"
            headers = {"Idempotency_Key": name} if number % 2 else {}
            answers = at_both([one, other], {**body, "volume_name": name}, **headers)
            assert [status for status, _, _ in answers] == [202] * 4, answers
            [made_of[name]] = {answer["job_id"] for _, _, answer in answers}
            replayed = [said.get("idempotent-replayed") for _, said, _ in answers].count("true")
            assert replayed == (3 if headers else 0)
        assert len(house.jobs()) == ROUNDS
        status, _, refused = ask(
            other,
            "POST",
            "/api/v1/provision",
            json.dumps({**body, "volume_name": "vm0", "mode": "copy"}).encode(),
            token=other.token,
        )
        assert (status, refused["code"]) == (409, "conflict")
        assert made_of["vm0"] in refused["details"]
        for job_id in made_of.values():
            client.events.cancel(job_id)
        status, _, again = ask(
            one, "POST", "/api/v1/provision", json.dumps({**body, "volume_name": "vm0"}).encode(), token=one.token
        )
        assert (status, again["job_id"] in house.jobs()) == (202, True)
        client.events.cancel(again["job_id"])


@pytest.fixture
def mortal() -> Iterator[Server]:
    """A server of the test's own, to be ended and started."""
    with running_server() as server:
        if server.cluster is None:
            pytest.skip("the server is somebody else's: it is not for us to end")
        yield server


def test_a_job_outlives_a_restart_of_its_database_and_callers_are_told_to_come_back(
    mortal: Server, golden: Storage, held: Gate, tmp_path: Path
) -> None:
    assert mortal.cluster is not None
    with mortal.database() as url, data_directory() as data:
        publish_images(data)
        words = ("--database", url, "--provision-lease", LONG_LEASE, *golden.options(held.port))
        with running_daemon(data, *words, prefix=golden.keys) as daemon:
            job_id = start(daemon, golden)
            assert held.passed.wait(WAIT_S)
            mortal.cluster.stop()
            held.open()  # it comes to the end of its step while nobody can write that down
            for method, path in (("GET", f"/api/v1/status/{job_id}"), ("DELETE", f"/api/v1/cancel/{job_id}")):
                status, headers, answer = ask(daemon, method, path, token=daemon.token)
                assert (status, answer["code"]) == (503, "unavailable")
                assert int(headers["retry-after"]) >= 1
            daemon.wait_for_event("waiting for the store")
            mortal.cluster.start()
            done = of(daemon, job_id, "completed", "failed")
            assert (done.status, done.attempts) == ("completed", 1)
            assert is_whole(done, golden, tmp_path)
