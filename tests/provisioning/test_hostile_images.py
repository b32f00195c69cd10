"""Hostile images through a real daemon and a real object storage: refused with words, nothing read, nothing left."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest
from tests.image.golden import qcow
from tests.image.golden.web import Web, web_server
from tests.provisioning.canary import Canary, canary
from tests.provisioning.daemons import (
    ask,
    credentials,
    ended,
    order,
    provisioning_daemon,
    what_is_left,
)
from tests.provisioning.relay import relay
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.volume.conftest import small_file_system

from hearth.bench.s3_server import S3Server
from hearth.sdk.client import Client

MIB = 1 << 20
DATA_FILE, BACKING_FORMAT = 0x44415441, 0xE2792ACA
EXTERNAL_DATA = 4


@dataclass(frozen=True, kw_only=True)
class Place:
    """A daemon, the bucket it reads, a web server it may ask, and a file of the host."""

    daemon: RunningDaemon
    server: S3Server
    bucket: str
    web: Web
    host_file: Canary

    def put(self, name: str, data: bytes) -> str:
        """Upload an object and give its URL."""
        obstore.put(self.server.store(self.bucket), name, data)
        return f"s3://{self.bucket}/{name}"

    def refused(self, client: Client, url: str, field: str, **changes: str) -> str:
        """Order a volume, see the job fail for that field, and give what it says."""
        status, answer, _ = ask(self.daemon, "POST", "/provision", order(url, **changes))
        assert status == 202, answer
        job = ended(client, answer["job_id"])
        assert job.status == "failed"
        assert job.error is not None
        assert job.error.field == field, job.error
        return f"{job.error.error}: {job.error.details}"


@pytest.fixture(scope="module")
def place(storage: S3Server | str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if isinstance(storage, str):
        pytest.skip(storage)
    host = tmp_path_factory.mktemp("host") / "secret"
    with storage.own_bucket("golden") as bucket, web_server() as web, canary(host) as host_file:
        words = ["--image-hosts", f"127.0.0.1:{web.port}", "--image-networks", "127.0.0.1/32"]
        words += ["--s3-retry-backoff-ms", "1"]
        with provisioning_daemon(*words, prefix=credentials(storage, bucket)) as daemon:
            yield Place(daemon=daemon, server=storage, bucket=bucket, web=web, host_file=host_file)


@pytest.fixture
def client(place: Place) -> Iterator[Client]:
    with place.daemon.client() as opened:
        yield opened
    assert what_is_left(place.daemon.data) == []
    assert not place.host_file.was_opened()


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return qcow.make(tmp_path_factory.mktemp("good"), data=os.urandom(2 * MIB))


def created(directory: Path, *words: str) -> bytes:
    """Let qemu-img make an empty image that it does not look behind."""
    path = directory / "made"
    subprocess.run(["qemu-img", "create", "-q", "-u", "-f", "qcow2", *words[:-1], str(path), words[-1]], check=True)
    return path.read_bytes()


def backed(_: bytes, directory: Path, host: Path) -> bytes:
    return created(directory, "-F", "raw", "-b", str(host), "8M")


def backed_by_json(_: bytes, directory: Path, host: Path) -> bytes:
    return created(directory, "-F", "raw", "-b", f'json:{{"driver":"raw","file.filename":"{host}"}}', "8M")


def backed_by_network(_: bytes, directory: Path, host: Path) -> bytes:
    return created(directory, "-F", "raw", "-b", "nbd://127.0.0.1:1/x", "8M")


def backed_in_secret(good: bytes, _: Path, host: Path) -> bytes:
    """The name lies far beyond the header, where version 2 allows it."""
    name = os.fsencode(host)
    return qcow.changed(good, backing_offset=len(good), backing_bytes=len(name)) + name


def with_data_file(good: bytes, _: Path, host: Path) -> bytes:
    return qcow.changed(qcow.with_extension(good, DATA_FILE, os.fsencode(host)), incompatible=EXTERNAL_DATA)


def with_data_file_by_bit_alone(good: bytes, _: Path, host: Path) -> bytes:
    return qcow.changed(good, incompatible=EXTERNAL_DATA)


def encrypted(good: bytes, _: Path, host: Path) -> bytes:
    return qcow.changed(good, encryption=2)


def absurd(_: bytes, directory: Path, host: Path) -> bytes:
    return created(directory, "1P")


def absurd_by_header(good: bytes, _: Path, host: Path) -> bytes:
    return qcow.changed(good, virtual_size=(1 << 63) - 512)


def l1_beyond(good: bytes, _: Path, host: Path) -> bytes:
    return qcow.changed(good, l1_offset=1 << 50)


def corrupt_table(good: bytes, _: Path, host: Path) -> bytes:
    (l1_offset,) = struct.unpack_from(">Q", good, 40)
    return good[:l1_offset] + os.urandom(64) + good[l1_offset + 64 :]


def all_clusters_alike(good: bytes, _: Path, host: Path) -> bytes:
    """Every cluster of the disk stands for the same bytes: small to fetch, large to unpack."""
    (l1_offset,) = struct.unpack_from(">Q", good, 40)
    l2_offset = struct.unpack_from(">Q", good, l1_offset)[0] & ~(1 << 63)
    return good[:l2_offset] + good[l2_offset : l2_offset + 8] * 256 + good[l2_offset + 2048 :]


def truncated(good: bytes, _: Path, host: Path) -> bytes:
    return good[: len(good) - 70_000]


def raw(_: bytes, directory: Path, host: Path) -> bytes:
    return os.urandom(MIB)


def gzipped(good: bytes, _: Path, host: Path) -> bytes:
    return gzip.compress(good)


Maker = Callable[[bytes, Path, Path], bytes]
BAD: list[tuple[Maker, str]] = [
    (backed, "backing file"),
    (backed_by_json, "backing file"),
    (backed_by_network, "backing file"),
    (backed_in_secret, "backing file"),
    (with_data_file, "external data file"),
    (with_data_file_by_bit_alone, "external data file"),
    (encrypted, "encrypted"),
    (absurd, "are possible"),
    (absurd_by_header, "the disk in it has|too short for its disk"),
    (l1_beyond, "not in it"),
    (corrupt_table, "damaged|cannot read"),
    (all_clusters_alike, "damaged"),
    (truncated, "damaged|cut off|cannot read"),
    (raw, "not a qcow2"),
    (gzipped, "not a qcow2"),
]


@pytest.mark.parametrize(("make", "words"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_a_bad_qcow2_is_refused_and_nothing_stays(
    place: Place, client: Client, good: bytes, tmp_path: Path, make: Maker, words: str
) -> None:
    url = place.put(make.__name__, make(good, tmp_path, place.host_file.path))
    said = place.refused(client, url, "image_type")
    assert any(part in said for part in words.split("|")), said
    assert what_is_left(place.daemon.data, parts=True) == []


def vmdk(host: Path) -> bytes:
    return f'# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 2048 FLAT "{host}" 0\n'.encode() * 40


def test_something_else_is_no_raw_disk(place: Place, client: Client, good: bytes) -> None:
    for name, data, words in (
        ("a.raw", good, "qcow2"),
        ("b.raw", vmdk(place.host_file.path), "VMDK"),
        ("c.raw", gzip.compress(os.urandom(MIB)), "gzip"),
    ):
        assert words in place.refused(client, place.put(name, data), "image_type", image_type="raw")
    assert what_is_left(place.daemon.data, parts=True) == []


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (b"0" * 64, "checksum is wrong"),
        (b"0" * 63, "checksum file cannot be used"),
        (b"", "checksum file cannot be used"),
        (b"\xff\xfe\x00", "checksum file cannot be used"),
        (b"0" * 64 + b"  other.qcow2\n", "checksum file cannot be used"),
        (b"<html>no such object</html>", "checksum file cannot be used"),
        (b"0" * 64 + b"  bad.qcow2\n" + b"1" * 64 + b"  bad.qcow2\n", "two things"),
        (b"\\" + b"0" * 64 + b"  bad.qcow2\n", "checksum file cannot be used"),
    ],
)
def test_a_wrong_or_malformed_checksum_is_refused(
    place: Place, client: Client, good: bytes, file: bytes, words: str
) -> None:
    url = place.put("bad.qcow2", good)
    place.put("bad.qcow2.sha256", file)
    assert words in place.refused(client, url, "checksum")
    assert what_is_left(place.daemon.data, parts=True) == []


def test_an_endless_checksum_file_is_not_read_to_its_end(place: Place, client: Client, good: bytes) -> None:
    url = place.put("long.qcow2", good)
    place.put("long.qcow2.sha256", b"0" * 20 * MIB)
    assert "too long" in place.refused(client, url, "image_url")


def test_a_wrong_checksum_in_the_order_is_refused_whatever_the_file_says(
    place: Place, client: Client, good: bytes
) -> None:
    url = place.put("right.qcow2", good)
    place.put("right.qcow2.sha256", hashlib.sha256(good).hexdigest().encode())
    assert "checksum is wrong" in place.refused(client, url, "checksum", checksum="f" * 64)
    assert what_is_left(place.daemon.data, parts=True) == []


def test_what_is_not_there_or_empty_is_refused(place: Place, client: Client) -> None:
    assert "no such image" in place.refused(client, f"s3://{place.bucket}/nothing", "image_url")
    assert "out of bounds" in place.refused(client, place.put("empty", b""), "image_url")


def test_an_object_that_is_cut_short_again_and_again_is_refused(place: Place, client: Client, good: bytes) -> None:
    place.web.objects["/short"] = good
    place.web.cut_after = place.web.sent_bytes + 1000
    try:
        said = place.refused(client, place.web.url("/short"), "image_url")
    finally:
        place.web.cut_after = None
    assert "127.0.0.1" in said


def test_an_object_replaced_while_it_is_fetched_is_refused(place: Place, client: Client, good: bytes) -> None:
    """By the real object storage, which then has another ETag; and by a web server in the middle of an answer."""
    with (
        relay(place.server.endpoint) as network,
        provisioning_daemon(
            prefix=credentials(place.server, place.bucket, f"http://127.0.0.1:{network.port}")
        ) as daemon,
        daemon.client() as theirs,
    ):
        url = place.put("changing.qcow2", good)
        network.hold(after_bytes=len(good) // 2)
        status, answer, _ = ask(daemon, "POST", "/provision", order(url))
        assert status == 202
        network.wait_until_held()
        place.put("changing.qcow2", good[::-1])
        network.release()
        job = ended(theirs, answer["job_id"])
        assert job.error is not None
        assert (job.error.field, job.error.error) == ("image_url", "the image changed while it was read")
        assert what_is_left(daemon.data, parts=True) == []
    place.web.objects["/changing"] = good
    place.web.change_after = place.web.sent_bytes + len(good) // 2
    assert "changed" in place.refused(client, place.web.url("/changing"), "image_url")
    assert what_is_left(place.daemon.data) == []


@pytest.mark.root
def test_a_compressed_bomb_is_refused_before_it_is_unpacked(place: Place, client: Client, tmp_path: Path) -> None:
    """Its disk is as large as was asked for, its data do not fit; and a little file of it is all that was fetched."""
    bomb = qcow.make(tmp_path, "-c", size="64M", data=b"bomb" * 12 * MIB)
    assert len(bomb) < 2 * MIB
    url = place.put("bomb.qcow2", bomb)
    with data_directory() as data:
        publish_images(data)
        data.golden_volumes.mkdir(parents=True)
        with (
            small_file_system(tmp_path, 24, at=data.golden_volumes),
            running_daemon(data, prefix=credentials(place.server, place.bucket)) as daemon,
            daemon.client() as theirs,
        ):
            _, answer, _ = ask(daemon, "POST", "/provision", order(url, volume_size_gb=1 / 16, mode="copy"))
            job = ended(theirs, answer["job_id"])
            assert job.error is not None
            assert (job.status, job.error.code) == ("failed", "no_space")
            assert "are needed" in job.error.details
            assert "populating" not in [step.name for step in job.steps]
            assert not list((data.golden_volumes / "volumes").iterdir())
