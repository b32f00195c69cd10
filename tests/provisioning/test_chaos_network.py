"""Networks that are cut, storages that die, stall or are slow, and many orders at once: through a real daemon."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import obstore
import pytest
from tests.image.golden.web import Web
from tests.provisioning.daemons import (
    DEADLINE_S,
    ask,
    credentials,
    ended,
    order,
    provisioning_daemon,
    wait_for_stage,
    what_is_left,
)
from tests.provisioning.relay import Relay, relay
from tests.server.daemon import RunningDaemon

from hearth.bench.row import Skipped
from hearth.bench.s3_server import S3Server, own_s3_server
from hearth.host.clock import SystemClock
from hearth.image.golden.base import SourceUnreachable
from hearth.image.golden.cache import ImageCache
from hearth.image.golden.choosing import open_source
from hearth.image.golden.judge import ImageJudge
from hearth.image.golden.part import chunk_size
from hearth.image.golden.settings import CacheSettings, DownloadSettings, GoldenSettings, RetrySettings, SourcePolicy

MIB = 1 << 20
DATA = os.urandom(24 * MIB)
PATIENT = ("--s3-retry-attempts", "100", "--s3-retry-backoff-ms", "1000")
HASTY = ("--s3-retry-attempts", "2", "--s3-retry-backoff-ms", "1")
CHUNK_BYTES = chunk_size(len(DATA))
ON_ITS_WAY_MAX_BYTES = 12 * MIB
"""What the kernel holds of a connection that is given up."""


@dataclass(frozen=True, kw_only=True)
class Far:
    """An object storage of the test's own and the network to it."""

    server: S3Server
    network: Relay
    bucket: str

    def put(self, name: str) -> str:
        obstore.put(self.server.store(self.bucket), name, DATA)
        return f"s3://{self.bucket}/{name}"

    @contextlib.contextmanager
    def daemon(self, *words: str) -> Iterator[RunningDaemon]:
        endpoint = f"http://127.0.0.1:{self.network.port}"
        with provisioning_daemon(*words, prefix=credentials(self.server, self.bucket, endpoint)) as running:
            yield running


@pytest.fixture
def far(s3: S3Server, bucket: str) -> Iterator[Far]:
    with relay(s3.endpoint) as network:
        yield Far(server=s3, network=network, bucket=bucket)


def start(daemon: RunningDaemon, url: str, name: str = "vm", mode: str = "copy") -> str:
    status, answer, _ = ask(daemon, "POST", "/provision", order(url, name, image_type="raw", mode=mode))
    assert status == 202, answer
    return str(answer["job_id"])


def fetched(daemon: RunningDaemon) -> dict[str, int]:
    """Tell what the one download that came to its end says of itself."""
    [said] = [entry for entry in daemon.log() if entry["event"] == "image fetched"]
    return {name: int(said[name]) for name in ("received_bytes", "resumed_bytes", "ranges")}


def digest(path: str | None) -> str:
    assert path is not None
    with Path(path).open("rb") as file:
        return hashlib.sha256(file.read(len(DATA))).hexdigest()


SHA256 = hashlib.sha256(DATA).hexdigest()


def test_a_download_survives_a_network_that_comes_back(far: Far) -> None:
    url = far.put("a")
    with far.daemon(*PATIENT) as daemon, daemon.client() as client:
        far.network.hold(after_bytes=len(DATA) // 2)
        job_id = start(daemon, url)
        far.network.wait_until_held()
        far.network.cut()
        client.events.job(job_id)
        far.network.restore()
        job = ended(client, job_id)
        assert (job.status, digest(job.volume_path)) == ("completed", SHA256)
        told = fetched(daemon)
        assert told["received_bytes"] <= len(DATA) + told["ranges"] * CHUNK_BYTES, "a cut costs each range a chunk"


def test_after_a_cut_at_90_per_cent_another_order_fetches_nothing_again_that_is_there(far: Far) -> None:
    url = far.put("b")
    with far.daemon(*HASTY) as daemon, daemon.client() as client:
        far.network.hold(after_bytes=len(DATA) * 9 // 10)
        job_id = start(daemon, url)
        far.network.wait_until_held()
        far.network.cut()
        job = ended(client, job_id)
        assert job.error is not None
        assert (job.status, job.error.code, job.error.field) == ("failed", "unavailable", "image_url")
        assert what_is_left(daemon.data) == []
        assert len(what_is_left(daemon.data, parts=True)) == 2, "the part and its journal"
        [journal] = (daemon.data.golden_images / "parts").glob("*.journal")
        chunks = {line.split()[0] for line in journal.read_text().splitlines()[1:] if line}
        assert chunks, "how many depends on the ranges that were cut off; see the tests of the cache"
        far.network.restore()
        job = ended(client, start(daemon, url))
        assert (job.status, digest(job.volume_path)) == ("completed", SHA256)
        told = fetched(daemon)
        assert told["resumed_bytes"] == len(chunks) * CHUNK_BYTES
        assert told["received_bytes"] == len(DATA) - told["resumed_bytes"]
        assert [name for name in what_is_left(daemon.data, parts=True) if name.startswith("parts")] == []


def test_a_download_survives_its_storage_being_killed_and_started_again(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        try:
            server, process = stack.enter_context(own_s3_server(tmp_path, "secret-for-both"))
        except Skipped as error:
            pytest.skip(str(error))
        network = stack.enter_context(relay(server.endpoint))
        server.make_bucket("golden")
        far = Far(server=server, network=network, bucket="golden")
        url = far.put("c")
        with far.daemon(*PATIENT) as daemon, daemon.client() as client:
            network.hold(after_bytes=len(DATA) // 3)
            job_id = start(daemon, url)
            network.wait_until_held()
            process.kill()
            network.cut()
            process.wait()
            again, _ = stack.enter_context(own_s3_server(tmp_path, "secret-for-both"))
            network.restore(again.endpoint)
            job = ended(client, job_id)
            assert (job.status, digest(job.volume_path)) == ("completed", SHA256)


async def test_a_storage_that_stands_still_is_given_up_and_tried_again(tmp_path: Path, web: Web) -> None:
    """With two seconds of patience; daemons have half a minute, and so has whoever comes later."""
    web.objects["/x"] = DATA[: 3 * MIB]
    policy = SourcePolicy(http_hosts=(f"127.0.0.1:{web.port}",), private_networks=(ip_network("127.0.0.1/32"),))

    async def obtain(download: DownloadSettings) -> None:
        settings = CacheSettings(download=download)
        cache = ImageCache(tmp_path / "cache", settings, ImageJudge(virtual_max_bytes=1 << 40), SystemClock())
        cache.prepare()
        source = open_source(GoldenSettings(policy=policy, cache=settings), web.url("/x"))
        try:
            (await cache.obtain(source, "raw", lambda _: None)).release()
        finally:
            await source.close()

    web.flows.clear()
    try:
        with pytest.raises(SourceUnreachable, match="cannot be reached"):
            await obtain(DownloadSettings(stall_timeout_s=2.0, retry=RetrySettings(attempts=2, backoff_ms=(1,))))
    finally:
        web.flows.set()
    assert web.asked.count("/x") >= 3, "once for its size, and two tries"
    await obtain(DownloadSettings())


def test_eight_orders_of_one_image_at_once_fetch_it_once(far: Far) -> None:
    url = far.put("d")
    with far.daemon("--provision-jobs", "8") as daemon, daemon.client() as client, ThreadPoolExecutor(8) as pool:
        far.network.hold(after_bytes=len(DATA) // 2)
        jobs = list(pool.map(lambda number: start(daemon, url, f"vm{number}", "clone"), range(8)))
        far.network.wait_until_held()
        waiting = list(jobs)
        deadline_s = time.monotonic() + DEADLINE_S
        while len(waiting) > 1:  # all but the one that fetches it
            assert time.monotonic() < deadline_s, f"{waiting} do not wait for the one that was first"
            waiting = [id_ for id_ in waiting if client.events.job(id_).progress.stage not in ("resolving", "waiting")]
        assert client.events.job(waiting[0]).progress.stage == "downloading"
        far.network.release()
        done = [ended(client, job_id) for job_id in jobs]
        assert {job.status for job in done} == {"completed"}
        assert sorted(bool(job.cache_hit) for job in done) == [False] + [True] * 7
        assert fetched(daemon)["received_bytes"] == len(DATA)
        assert far.network.down_bytes < len(DATA) + ON_ITS_WAY_MAX_BYTES
        assert len(client.provisioning.volumes()) == 8


def test_a_burst_of_twenty_orders_is_accepted_or_told_when_to_come_again(far: Far) -> None:
    url = far.put("e")
    with far.daemon("--provision-queue", "12") as daemon, daemon.client() as client, ThreadPoolExecutor(20) as pool:
        far.network.hold(after_bytes=0)
        together = threading.Barrier(20)

        def burst(number: int) -> tuple[int, str, str]:
            together.wait(60)
            body = order(url, f"vm{number:02}", image_type="raw", mode="clone")
            status, answer, retry_after = ask(daemon, "POST", "/provision", body)
            return status, str(answer.get("job_id")), retry_after

        answers = list(pool.map(burst, range(20)))
        assert sorted(status for status, _, _ in answers) == [202] * 12 + [429] * 8
        assert all(int(retry_after) > 0 for status, _, retry_after in answers if status == 429)
        far.network.release()
        for _, job_id, _ in (answer for answer in answers if answer[0] == 202):
            assert ended(client, job_id).status == "completed"
        for number, (status, _, _) in enumerate(answers):
            if status == 429:
                assert ended(client, start(daemon, url, f"vm{number:02}", "clone")).status == "completed"
        names = [volume.volume_name for volume in client.provisioning.volumes()]
        assert names == [f"vm{number:02}" for number in range(20)]
        assert fetched(daemon)["received_bytes"] == len(DATA)
        assert far.network.down_bytes < len(DATA) + ON_ITS_WAY_MAX_BYTES


def test_a_slow_network_is_told_of_while_it_lasts(far: Far) -> None:
    """Piece by piece, each let through by us: the job tells how far it is, and ends."""
    url = far.put("f")
    with far.daemon(*PATIENT) as daemon, daemon.client() as client:
        far.network.hold(after_bytes=len(DATA) // 4)
        job_id = start(daemon, url)
        seen = []
        for _ in range(3):
            far.network.wait_until_held()
            wait_for_stage(client, job_id, "downloading")
            seen.append(client.events.job(job_id).progress.bytes_processed or 0)
            far.network.hold(after_bytes=len(DATA) // 4)
        far.network.release()
        assert ended(client, job_id).status == "completed"
        assert seen == sorted(seen)
