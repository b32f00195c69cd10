"""Provisioning by a whole daemon, and what it takes besides time: memory, bytes fetched again or twice, orders lost.

A real S3 server on loopback, as for ``image.*`` and ``volume.*``; measured only when they are named.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hearth.bench.capped import Relay, relayed
from hearth.bench.daemon import Daemon, data_directory, serving
from hearth.bench.row import Measurement, Row, at_most
from hearth.bench.rows.volumes import MEBIBYTE, MEGABYTE, Stage, staged
from hearth.bench.samples import Effort, SampleFailed, alternate
from hearth.errors import RateLimited
from hearth.image.golden.base import SourceUnreachable
from hearth.image.golden.settings import CacheSettings, DownloadSettings, GoldenSettings, RetrySettings
from hearth.sdk.client import Client

LARGE_MB, SMALL_MB = 1000, 100
GIB = 1 << 30
ORDERS, BURST, QUEUE = 8, 20, 12
CUT_AT = 0.9
LOOK_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Site:
    """A daemon that reads a stage's object by way of a relay."""

    stage: Stage
    daemon: Daemon
    relay: Relay

    def make(self, client: Client, names: Sequence[str], mode: str) -> None:
        """Order volumes one after the other, each when the one before is there, and delete them again."""
        for name in names:
            self.order(client, name, mode)
        self.forget(client, names)

    def order(self, client: Client, name: str, mode: str) -> None:
        """Order a volume and wait for it; whoever is told to come again does."""
        while True:
            try:
                job = client.provisioning.start(
                    self.stage.url, name, self.stage.virtual_bytes / GIB, image_type=self.stage.image_type, mode=mode
                )
            except RateLimited as error:
                time.sleep(error.retry_after_s / 100)  # as long as is told would be a measurement of pauses
                continue
            job.filled()
            return

    def forget(self, client: Client, names: Sequence[str]) -> None:
        """Delete volumes."""
        for name in names:
            client.provisioning.delete(name)

    def uncache(self, client: Client) -> None:
        """Forget all images."""
        for image in client.provisioning.images():
            client.provisioning.forget(image.key)


@contextlib.contextmanager
def _site(megabytes: int, *options: str) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(staged(megabytes * MEGABYTE))
        server, relay = stack.enter_context(relayed(made.server))
        data = stack.enter_context(data_directory())
        secrets = {
            "MINIO_ENDPOINT": server.endpoint,
            "MINIO_ACCESS_KEY": server.access_key,
            "MINIO_SECRET_KEY": server.secret_key,
            "MINIO_BUCKET": made.bucket,
        }
        daemon = stack.enter_context(serving(data, "local", *options, environment=secrets))
        yield Site(stage=made, daemon=daemon, relay=relay)


def _peak_mib(site: Site) -> float:
    """Fetch the image and copy it to a volume; gives the most memory that the daemon and its children had."""
    ended = threading.Event()
    peaks = [0]

    def look() -> None:
        while not ended.wait(LOOK_S):
            peaks.append(sum(map(_proportional_bytes, _family(site.daemon.pid))))

    watching = threading.Thread(target=look, name="memory")
    watching.start()
    try:
        with site.daemon.client() as client:
            site.make(client, ["bench"], "copy")
            site.uncache(client)
    finally:
        ended.set()
        watching.join()
    return max(peaks) / MEBIBYTE


def _family(pid: int) -> list[int]:
    """Give a process and all that come from it."""
    found = [pid]
    for each in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def _proportional_bytes(pid: int) -> int:
    """Give a process's share of the memory it has with others (proc(5), smaps_rollup); 0 when it has ended."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0


def _memory(effort: Effort) -> Measurement:
    with _site(LARGE_MB) as large, _site(SMALL_MB) as small:
        ours, theirs = alternate(lambda: _peak_mib(large), lambda: _peak_mib(small), effort.samples(3, 1, warm_up=0))
    return Measurement(measured=ours, reference=theirs, in_mib=True)


def _again_mib(made: Stage, relay: Relay, settings: GoldenSettings) -> float:
    """Fetch an image, cut off at 90 %, and once more; gives what came twice."""
    by_relay = dataclasses.replace(made, settings=settings)
    retry = RetrySettings(attempts=1)
    cut_settings = CacheSettings(download=DownloadSettings(retry=retry))

    async def work() -> float:
        before = relay.down_bytes
        relay.cut_after = before + int(CUT_AT * made.size_bytes)
        with contextlib.suppress(SourceUnreachable):
            (await by_relay.obtain(by_relay.cache("cut", cut_settings))).release()
            raise SampleFailed("the download was not cut")
        relay.cut_after = None
        (await by_relay.obtain(by_relay.cache("cut", cut_settings))).release()
        return (relay.down_bytes - before - made.size_bytes) / MEBIBYTE

    try:
        return asyncio.run(work())
    finally:
        relay.cut_after = None
        shutil.rmtree(made.room / "cut")


def _resume(effort: Effort) -> Measurement:
    with staged(LARGE_MB * MEGABYTE) as made, relayed(made.server) as (server, relay):
        if made.settings.s3 is None:
            raise AssertionError("a stage has an object storage")
        settings = GoldenSettings(s3=dataclasses.replace(made.settings.s3, endpoint=server.endpoint))
        again = functools.partial(_again_mib, made, relay, settings)
        ours, theirs = alternate(again, lambda: made.size_bytes / MEBIBYTE, effort.samples(5, 2, warm_up=0))
    return Measurement(measured=ours, reference=theirs, in_mib=True)


def _fetched_mib(site: Site, number: int) -> float:
    """Order so many volumes of one image at once, and give what was fetched for them."""
    names = [f"vm{each}" for each in range(number)]
    before = site.relay.down_bytes
    _all_at_once(site, names, "clone")
    fetched = site.relay.down_bytes - before
    with site.daemon.client() as client:
        if len(client.provisioning.volumes()) != number:
            raise SampleFailed(f"{len(client.provisioning.volumes())} of {number} volumes are there")
        site.forget(client, names)
        site.uncache(client)
    return fetched / MEBIBYTE


def _all_at_once(site: Site, names: Sequence[str], mode: str) -> None:
    together = threading.Barrier(len(names))

    def one(name: str) -> None:
        with site.daemon.client() as client:
            together.wait()
            site.order(client, name, mode)

    with ThreadPoolExecutor(len(names)) as pool:
        for _ in pool.map(one, names):
            pass


def _concurrent(effort: Effort) -> Measurement:
    with _site(SMALL_MB, "--provision-jobs", str(ORDERS)) as site:
        ours, theirs = alternate(
            lambda: _fetched_mib(site, ORDERS), lambda: _fetched_mib(site, 1), effort.samples(5, 2, warm_up=0)
        )
    return Measurement(measured=ours, reference=theirs, in_mib=True)


def _burst(effort: Effort) -> Measurement:
    names = [f"vm{each:02}" for each in range(BURST)]
    with _site(SMALL_MB, "--provision-queue", str(QUEUE)) as site, site.daemon.client() as client:
        site.order(client, "warm", "clone")

        def burst() -> float:
            began_s = time.perf_counter()
            _all_at_once(site, names, "clone")
            took_s = time.perf_counter() - began_s
            made = {volume.volume_name for volume in client.provisioning.volumes()}
            if not made.issuperset(names):
                raise SampleFailed(f"lost: {', '.join(sorted(set(names) - made))}")
            site.forget(client, names)
            return took_s

        def in_turn() -> float:
            began_s = time.perf_counter()
            for name in names:
                site.order(client, name, "clone")
            took_s = time.perf_counter() - began_s
            site.forget(client, names)
            return took_s

        ours, theirs = alternate(burst, in_turn, effort.samples(5, 2))
    return Measurement(measured=ours, reference=theirs)


ROWS = (
    Row(
        name="volume.memory",
        what="most memory of daemon and children while an image of 1 GB is fetched and copied",
        reference="the same with 100 MB",
        goals=at_most(mib=200, ratio=1.25),
        measure=_memory,
        is_long=True,
    ),
    Row(
        name="image.resume",
        what="bytes fetched twice after a cut at 90 % of 1 GB",
        reference="the whole image",
        goals=at_most(ratio=0.15),
        measure=_resume,
        is_long=True,
    ),
    Row(
        name="image.concurrent",
        what="bytes fetched for 8 orders of one image at once",
        reference="for one order",
        goals=at_most(ratio=1.02),
        measure=_concurrent,
        is_long=True,
    ),
    Row(
        name="volume.burst",
        what=f"{BURST} orders at once where {QUEUE} may wait, until every volume is there",
        reference="one after the other",
        goals=at_most(ratio=1.1),
        measure=_burst,
        is_long=True,
    ),
)
