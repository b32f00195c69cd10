"""Golden images on their way: from object storage into the cache, and from there onto volumes.

A real S3 server on loopback, images of 100 MB, 500 MB and 1 GB of what lies below /usr, made by qemu-img. Each row
takes minutes and gigabytes, so they are measured only when they are named.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import obstore

from hearth.bench.capped import capped
from hearth.bench.processes import scratch
from hearth.bench.row import Measurement, Row, Skipped, at_most
from hearth.bench.s3_server import S3Server, s3_server
from hearth.bench.samples import Effort, alternate, timed
from hearth.host.clock import SystemClock
from hearth.image.golden.cache import ImageCache, Progress
from hearth.image.golden.choosing import open_source
from hearth.image.golden.entries import Lease
from hearth.image.golden.judge import ImageJudge
from hearth.image.golden.settings import CacheSettings, GoldenSettings, S3Settings
from hearth.volume.golden.base import GoldenImage, TargetSpec
from hearth.volume.golden.file import FileGoldenVolumes
from hearth.volume.golden.populate import COROUTINES, populate

MEGABYTE = 1_000_000
MEBIBYTE = 1 << 20
DOWNLOAD_BYTES = 1024 * MEBIBYTE
CAPPED_BYTES = 1024 * MEBIBYTE
CAP_BYTES_PER_S = 50 * MEBIBYTE
OBJECT = "golden"
PART_BYTES = 64 * MEBIBYTE
TOOL_TIMEOUT_S = 600.0
FREE_WANTED_BYTES = 8_000 * MEGABYTE
ANYTHING_BELOW = Path("/usr")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a row works with: a server with one object in a bucket of its own, our side of it, and room for files.

    ``size_bytes`` are the object's, ``virtual_bytes`` those of the disk in it.
    """

    room: Path
    server: S3Server
    bucket: str
    settings: GoldenSettings
    image_type: str
    size_bytes: int
    virtual_bytes: int

    @property
    def url(self) -> str:
        """What the object is asked for by."""
        return f"s3://{self.bucket}/{OBJECT}"

    def cache(self, name: str, settings: CacheSettings | None = None) -> ImageCache:
        """Give a cache of that name."""
        settings = settings or CacheSettings()
        judge = ImageJudge(virtual_max_bytes=settings.virtual_max_bytes)
        made = ImageCache(self.room / name, settings, judge, SystemClock())
        made.prepare()
        return made

    async def obtain(self, cache: ImageCache) -> Lease:
        """Have the image in a cache."""
        source = open_source(self.settings, self.url)
        try:
            return await cache.obtain(source, self.image_type, _ignore)
        finally:
            await source.close()

    def signed_url(self) -> str:
        """Give a URL that curl can fetch."""
        return obstore.sign(self.server.store(self.bucket), "GET", OBJECT, timedelta(hours=1))


def _ignore(_: Progress) -> None:
    """Nobody looks."""


@contextlib.contextmanager
def staged(data_bytes: int, *, image_type: str = "qcow2", cap: int | None = None) -> Iterator[Stage]:
    """Put an image with so many bytes in it into object storage; it goes at the end, with its bucket.

    Raises:
        Skipped: a tool or room is missing.
    """
    for tool in ("curl", "qemu-img", "sha256sum"):
        if shutil.which(tool) is None:
            raise Skipped(f"{tool} is not installed")
    with contextlib.ExitStack() as stack:
        room = stack.enter_context(scratch())
        if shutil.disk_usage(room).free < FREE_WANTED_BYTES:
            raise Skipped(f"{room.parent} has less than {FREE_WANTED_BYTES // 10**9} GB free")
        server = stack.enter_context(s3_server())
        # The server may be one that others use, too.
        bucket = stack.enter_context(server.own_bucket("bench"))
        path = _make_image(room, data_bytes, image_type)
        size_bytes = path.stat().st_size
        _upload(server, bucket, path)
        path.unlink()
        if cap is not None:
            server = stack.enter_context(capped(server, bytes_per_s=cap))
        s3 = S3Settings(
            endpoint=server.endpoint, access_key=server.access_key, secret_key=server.secret_key, buckets=(bucket,)
        )
        yield Stage(
            room=room,
            server=server,
            bucket=bucket,
            settings=GoldenSettings(s3=s3),
            image_type=image_type,
            size_bytes=size_bytes,
            virtual_bytes=size_bytes if image_type == "raw" else 2 * data_bytes,
        )


def _upload(server: S3Server, bucket: str, path: Path) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        obstore.put(server.store(bucket), OBJECT, file, chunk_size=PART_BYTES)
    obstore.put(server.store(bucket), f"{OBJECT}.sha256", f"{digest}  {OBJECT}\n".encode())


def _make_image(room: Path, data_bytes: int, image_type: str) -> Path:
    """Write files of this host one after the other; a qcow2 disk is twice as large as what is in it."""
    raw = room / "made.raw"
    written = 0
    with raw.open("wb") as out:
        while written < data_bytes:
            for data in _contents():
                out.write(data[: data_bytes - written])
                written = out.tell()
                if written >= data_bytes:
                    break
    if image_type == "raw":
        return raw
    os.truncate(raw, 2 * data_bytes)
    path = room / "made.qcow2"
    _run(["qemu-img", "convert", "-f", "raw", "-O", image_type, str(raw), str(path)])
    raw.unlink()
    return path


def _contents() -> Iterator[bytes]:
    for directory, _, names in os.walk(ANYTHING_BELOW):
        for name in names:
            path = Path(directory, name)
            with contextlib.suppress(OSError):
                if path.is_file() and not path.is_symlink():
                    yield path.read_bytes()


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=TOOL_TIMEOUT_S)


def _download(stage: Stage) -> float:
    async def work() -> float:
        began_s = time.perf_counter()
        (await stage.obtain(stage.cache("download"))).release()
        return time.perf_counter() - began_s

    try:
        return asyncio.run(work())
    finally:
        shutil.rmtree(stage.room / "download")


def _slowest_alone(stage: Stage) -> float:
    """Take the slowest of what a download is made of, each alone: receive, hash, write and sync."""
    data = memoryview(os.urandom(MEBIBYTE))

    def receive() -> None:
        for _ in obstore.get(stage.server.store(stage.bucket), OBJECT).stream(min_chunk_size=MEBIBYTE):
            pass

    def digest() -> None:
        found = hashlib.sha256()
        for _ in range(DOWNLOAD_BYTES // MEBIBYTE):
            found.update(data)

    def write() -> None:
        with (stage.room / "written").open("wb", buffering=0) as file:
            for _ in range(DOWNLOAD_BYTES // MEBIBYTE):
                file.write(data)
            os.fsync(file.fileno())
        (stage.room / "written").unlink()

    return max(timed(part)() for part in (receive, digest, write))


def _image_download(effort: Effort) -> Measurement:
    with staged(DOWNLOAD_BYTES, image_type="raw") as stage:
        ours, theirs = alternate(
            functools.partial(_download, stage), functools.partial(_slowest_alone, stage), effort.samples(7, 3)
        )
    return Measurement(measured=ours, reference=theirs, megabytes=DOWNLOAD_BYTES / MEGABYTE)


def _image_capped(effort: Effort) -> Measurement:
    with staged(CAPPED_BYTES, image_type="raw", cap=CAP_BYTES_PER_S) as stage:
        curl = timed(lambda: _run(["curl", "-sSf", "-o", str(stage.room / "fetched"), stage.signed_url()]))
        ours, theirs = alternate(functools.partial(_download, stage), curl, effort.samples(3, 2, warm_up=0))
    return Measurement(measured=ours, reference=theirs, megabytes=CAPPED_BYTES / MEGABYTE)


def _golden(lease: Lease) -> GoldenImage:
    return GoldenImage(
        path=lease.path,
        format=lease.facts.format,
        key=lease.key,
        size_bytes=lease.facts.size_bytes,
        virtual_size_bytes=lease.facts.virtual_size_bytes,
    )


def _provision(stage: Stage, cache_name: str, *, clone: bool) -> float:
    """Provision a volume as large as its disk and tell how long that took; it is removed again."""
    volumes = FileGoldenVolumes(stage.room / "volumes")
    volumes.prepare()

    async def work() -> float:
        began_s = time.perf_counter()
        with await stage.obtain(stage.cache(cache_name)) as lease:
            image = _golden(lease)
            spec = TargetSpec(name="bench", size_bytes=image.virtual_size_bytes, job="bench")
            if clone:
                target = await volumes.clone(spec, image)
            else:
                target = await volumes.create(spec, image)
                await populate(image, target, lambda _done, _total: None)
            await volumes.publish(target)
        took_s = time.perf_counter() - began_s
        await volumes.delete("bench")
        return took_s

    return asyncio.run(work())


def _by_hand(stage: Stage) -> float:
    fetched, volume = stage.room / "fetched", stage.room / "volume"

    def work() -> None:
        _run(["curl", "-sSf", "-o", str(fetched), stage.signed_url()])
        _run(["sha256sum", str(fetched)])
        _run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(fetched), str(volume)])

    try:
        return timed(work)()
    finally:
        fetched.unlink(missing_ok=True)
        volume.unlink(missing_ok=True)


def _volume_cold(megabytes: int, effort: Effort) -> Measurement:
    with staged(megabytes * MEGABYTE) as stage:

        def cold() -> float:
            try:
                return _provision(stage, "cold", clone=False)
            finally:
                shutil.rmtree(stage.room / "cold")

        ours, theirs = alternate(cold, functools.partial(_by_hand, stage), effort.samples(5, 2))
    return Measurement(measured=ours, reference=theirs)


def _volume_clone(effort: Effort) -> Measurement:
    with staged(1000 * MEGABYTE) as large, staged(100 * MEGABYTE) as small:
        ours, theirs = alternate(
            lambda: _provision(large, "warm", clone=True),
            lambda: _provision(small, "warm", clone=True),
            effort.samples(20, 5),
        )
    return Measurement(measured=ours, reference=theirs)


def _volume_copy(effort: Effort) -> Measurement:
    with staged(1000 * MEGABYTE) as stage:
        _provision(stage, "warm", clone=False)
        cached = next((stage.room / "warm/images").glob("*/image"))
        volume = stage.room / "volume"

        def convert() -> None:
            volume.touch()
            os.truncate(volume, 2000 * MEGABYTE)
            flags = ["-n", "-t", "none", "-W", "-m", str(COROUTINES), "--target-is-zero"]
            _run(["qemu-img", "convert", *flags, "-f", "qcow2", "-O", "raw", str(cached), str(volume)])
            descriptor = os.open(volume, os.O_RDWR)
            os.fsync(descriptor)
            os.close(descriptor)

        def best() -> float:
            try:
                return timed(convert)()
            finally:
                volume.unlink(missing_ok=True)

        ours, theirs = alternate(lambda: _provision(stage, "warm", clone=False), best, effort.samples(7, 3))
    return Measurement(measured=ours, reference=theirs)


def _cold_row(name: str, megabytes: int) -> Row:
    return Row(
        name=f"volume.cold_{name}",
        what=f"provision a volume from an image of {megabytes} MB in object storage",
        reference="curl, then sha256sum, then qemu-img convert",
        goals=at_most(ratio=0.8),
        measure=functools.partial(_volume_cold, megabytes),
        is_long=True,
    )


def _row(name: str, what: str, reference: str, measure: Callable[[Effort], Measurement], **limits: float) -> Row:
    return Row(name=name, what=what, reference=reference, goals=at_most(**limits), measure=measure, is_long=True)


ROWS = (
    _row(
        "image.download",
        "fetch 1 GiB from object storage, verified, into the cache",
        "the slowest of receiving, hashing and writing alone",
        _image_download,
        ratio=1.25,
    ),
    _row(
        "image.download_capped",
        "fetch 1 GiB where each connection is held to 50 MiB/s",
        "curl",
        _image_capped,
        ratio=0.2,
    ),
    _cold_row("100mb", 100),
    _cold_row("500mb", 500),
    _cold_row("1gb", 1000),
    _row(
        "volume.clone",
        "provision by clone what is in the cache: 1 GB",
        "the same with 100 MB",
        _volume_clone,
        p50_ms=300,
        ratio=1.5,
    ),
    _row(
        "volume.copy",
        "provision by copy what is in the cache: 1 GB",
        "qemu-img convert with the best flags, and a sync",
        _volume_copy,
        ratio=1.1,
    ),
)
