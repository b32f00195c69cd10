"""From an image in object storage to a libvirt domain that boots from it, through a real daemon and a real libvirtd."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from tests.libvirtd import Libvirtd
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.tiny_guest import domain_xml, write_disk

from hearth.bench.row import Skipped
from hearth.bench.s3_server import s3_server
from hearth.errors import Conflict, InvalidInput
from hearth.sdk.client import Client

pytestmark = pytest.mark.libvirt

MIB = 1 << 20
GB = 1 / 1024
"""One MiB, as orders count."""
SAID = "hello from the golden image"
BOOT_S = 120.0


@pytest.fixture(scope="module", autouse=True)
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, tuple[str, ...]] | str]:
    """An object storage with the image of a guest in it: its URL, and the words of a daemon that may read it.

    For the whole module, since the client library's threads stay once they are there.
    """
    root = tmp_path_factory.mktemp("golden")
    try:
        with s3_server() as server:
            bucket = f"golden-{secrets.token_hex(6)}"
            server.make_bucket(bucket)
            write_disk(root / "guest.raw", SAID, 8 * MIB)
            image = root / "guest.qcow2"
            convert = ("qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2")
            subprocess.run([*convert, root / "guest.raw", image], check=True)
            digest = hashlib.sha256(image.read_bytes()).hexdigest()
            obstore.put(server.store(bucket), "guest.qcow2", image)
            obstore.put(server.store(bucket), "guest.qcow2.sha256", f"{digest}  guest.qcow2\n".encode())
            keys = (f"MINIO_ACCESS_KEY={server.access_key}", f"MINIO_SECRET_KEY={server.secret_key}")
            endpoint = (f"MINIO_ENDPOINT={server.endpoint}", f"MINIO_BUCKET={bucket}")
            yield f"s3://{bucket}/guest.qcow2", ("env", *keys, *endpoint)
    except Skipped as error:
        yield str(error)


@pytest.fixture(scope="module")
def pool(libvirtd: Libvirtd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with libvirtd.pool(tmp_path_factory.mktemp("pool")) as name:
        yield name


@pytest.fixture(scope="module")
def url(storage: tuple[str, tuple[str, ...]] | str) -> str:
    if isinstance(storage, str):
        pytest.skip(storage)
    return storage[0]


@pytest.fixture(scope="module")
def daemon(storage: tuple[str, tuple[str, ...]] | str, url: str, libvirtd: Libvirtd) -> Iterator[RunningDaemon]:
    with data_directory() as data:
        publish_images(data)
        prefix = (*storage[1], f"LIBVIRT_URI={libvirtd.uri}")
        with running_daemon(data, prefix=prefix) as running:
            yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with daemon.client() as opened:
        yield opened
        for volume in opened.provisioning.volumes():
            opened.provisioning.delete(volume.volume_name, pool=volume.pool)


def wait_for(serial: Path, said: str) -> None:
    deadline = time.monotonic() + BOOT_S
    while said not in (text := serial.read_text() if serial.exists() else ""):
        assert time.monotonic() < deadline, f"the machine said only {text!r}"
        time.sleep(0.05)


@pytest.mark.parametrize("mode", ["copy", "clone"])
def test_a_domain_boots_from_a_volume_and_keeps_it_from_being_replaced(
    client: Client, libvirtd: Libvirtd, pool: str, url: str, tmp_path: Path, mode: str
) -> None:
    job = client.provisioning.start(url, "guest", 16 * GB, pool=pool, mode=mode).filled()
    assert job.volume_path is not None
    with libvirtd.connected() as connection:
        seen = connection.storagePoolLookupByName(pool).storageVolLookupByName("guest")
        assert (seen.path(), seen.info()[1]) == (job.volume_path, 16 * MIB)
    volume = client.provisioning.volume("guest", pool=pool)
    name, serial = f"hearth-test-{secrets.token_hex(4)}", tmp_path / "serial"
    with libvirtd.domain(domain_xml(name, Path(job.volume_path), volume.format, serial)) as domain:
        domain.create()
        wait_for(serial, SAID)
        for _ in ("running", "shut off"):
            with pytest.raises(Conflict, match="in use"):
                client.provisioning.start(url, "guest", 16 * GB, pool=pool, mode=mode)
            with pytest.raises(Conflict, match="in use"):
                client.provisioning.delete("guest", pool=pool)
            with pytest.raises(Conflict, match="in use"):
                client.provisioning.grow("guest", 32 * GB, pool=pool)
            if domain.isActive():
                domain.destroy()
    again = client.provisioning.start(url, "guest", 16 * GB, pool=pool, mode=mode).filled()
    assert (again.job_id != job.job_id, again.cache_hit, again.volume_path) == (True, True, job.volume_path)


def test_a_volume_of_the_hosts_own_is_in_use_too_while_a_domain_is_defined(
    client: Client, libvirtd: Libvirtd, url: str, tmp_path: Path
) -> None:
    job = client.provisioning.start(url, "guest", 16 * GB).filled()
    assert job.volume_path is not None
    name = f"hearth-test-{secrets.token_hex(4)}"
    xml = domain_xml(name, Path(job.volume_path), "qcow2", tmp_path / "serial")
    with libvirtd.domain(xml), pytest.raises(Conflict, match="in use"):
        client.provisioning.delete("guest")
    client.provisioning.delete("guest")


def test_a_pool_that_is_nowhere_or_stopped_is_refused_with_words(
    client: Client, libvirtd: Libvirtd, pool: str, url: str
) -> None:
    with pytest.raises(InvalidInput, match="virsh pool-list"):
        client.provisioning.start(url, "guest", 16 * GB, pool="nowhere")
    client.provisioning.start(url, "kept", 16 * GB, pool=pool).filled()
    with libvirtd.connected() as connection:
        connection.storagePoolLookupByName(pool).destroy()
    try:
        with pytest.raises(Conflict, match="pool-start"):
            client.provisioning.start(url, "guest", 16 * GB, pool=pool)
        assert client.provisioning.volumes() == []
    finally:
        with libvirtd.connected() as connection:
            connection.storagePoolLookupByName(pool).create()
    assert [volume.volume_name for volume in client.provisioning.volumes()] == ["kept"]


def test_two_daemons_of_one_host_leave_each_other_what_they_made_in_one_pool(
    daemon: RunningDaemon,
    client: Client,
    storage: tuple[str, tuple[str, ...]] | str,
    libvirtd: Libvirtd,
    pool: str,
    url: str,
) -> None:
    prefix = (*storage[1], f"LIBVIRT_URI={libvirtd.uri}")
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, prefix=prefix) as running, running.client() as other:
            mine = other.provisioning.start(url, "others", 16 * GB, pool=pool).filled()
            client.provisioning.start(url, "guest", 16 * GB, pool=pool).filled()
            assert [each.volume_name for each in client.provisioning.volumes()] == ["guest", "others"]
            home = data.host_id.read_text().strip()
            for work in (
                lambda: client.provisioning.delete("others", pool=pool),
                lambda: client.provisioning.grow("others", 32 * GB, pool=pool),
            ):
                with pytest.raises(Conflict, match=f"data directory {home}, which made it and is running"):
                    work()
            with pytest.raises(Conflict):
                client.provisioning.start(url, "others", 16 * GB, pool=pool)
            assert other.provisioning.volume("others", pool=pool).path == mine.volume_path
        with data_directory() as copy:
            publish_images(copy)
            copy.host_id.write_text(daemon.data.host_id.read_text())
            with pytest.raises(AssertionError, match="did not become ready"), running_daemon(copy, prefix=prefix):
                pytest.fail("it is ready")
            assert "delete host.id in the copy" in (copy.root / "log.jsonl").read_text()
    client.provisioning.delete("others", pool=pool)
    assert [each.volume_name for each in client.provisioning.volumes()] == ["guest"]
