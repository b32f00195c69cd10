"""Golden disk images in object storage become sandboxes: whole disks with a table, and bare file systems."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from tests.disks import ESP, LINUX, disk, ext4, qcow2, run, tree_of_programs
from tests.machines.test_container_images import own_images
from tests.server.daemon import RunningDaemon, data_directory, running_daemon

from hearth.bench.row import Skipped
from hearth.bench.s3_server import S3Server, s3_server
from hearth.errors import Conflict, InvalidInput
from hearth.sdk.client import Client, Sandbox

READ = "dd if=/dev/vdf iflag=direct bs=1M status=none"
"""The first place for what is only read, past the cache of the guest's kernel."""


@pytest.fixture(scope="module")
def storage() -> Iterator[S3Server]:
    try:
        with s3_server() as server:
            yield server
    except Skipped as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file system with a few programs."""
    where = tmp_path_factory.mktemp("golden")
    return ext4(where / "root.raw", 48, tree_of_programs(where / "tree", {"mark": "golden"}), "rootfs")


@pytest.fixture
def root_bytes(root: Path) -> bytes:
    return root.read_bytes()


@pytest.fixture(scope="module")
def bucket(storage: S3Server, root: Path) -> str:
    """A bucket with a disk of two partitions as qcow2, a bare file system as raw, and checksums of both."""
    name, where = f"golden-{secrets.token_hex(6)}", root.parent
    storage.make_bucket(name)
    whole = disk(where / "disk.raw", 64, [(ESP, 4), (LINUX, root)])
    for path in (qcow2(whole, compressed=True), root):
        store = storage.store(name)
        obstore.put(store, path.name, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        obstore.put(store, f"{path.name}.sha256", f"{digest}  {path.name}\n".encode())
    return name


@pytest.fixture(scope="module")
def daemon(images: None, storage: S3Server, bucket: str) -> Iterator[RunningDaemon]:
    with data_directory() as data, pytest.MonkeyPatch.context() as environment:
        own_images(data)
        environment.setenv("MINIO_ACCESS_KEY", storage.access_key)
        environment.setenv("MINIO_SECRET_KEY", storage.secret_key)
        words = ["--s3-endpoint", storage.endpoint, "--s3-bucket", bucket]
        with running_daemon(data, "--engine", "qemu", "--pool", "0", *words) as running:
            yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with daemon.client() as made:
        yield made


def test_a_whole_disk_becomes_a_sandbox_that_runs_forks_and_keeps_its_image(client: Client, bucket: str) -> None:
    image = client.images.golden(f"s3://{bucket}/disk.qcow2", "whole").wait()
    assert (image.kind, image.source) == ("rootfs", f"s3://{bucket}/disk.qcow2")
    assert image.size_bytes == 48 << 20
    with client.create(name="whole", image="whole") as sandbox:
        assert sandbox.run(["cat", "/mark"]).check().stdout == "golden"
        sandbox.run(["sh", "-c", "echo changed >/mark; sync"]).check()
        with sandbox.fork()[0] as copy:
            assert copy.run(["cat", "/mark"]).check().stdout == "changed\n"
            copy.run(["sh", "-c", "echo apart >/mark"]).check()
        assert sandbox.run(["cat", "/mark"]).check().stdout == "changed\n"
        with client.create(name="again", image="whole") as other:
            assert other.run(["cat", "/mark"]).check().stdout == "golden"


def test_a_kept_image_is_used_by_its_key_and_a_bare_file_system_is_a_root(client: Client, bucket: str) -> None:
    client.images.golden(f"s3://{bucket}/root.raw", "bare", image_type="raw").wait()
    [kept] = [each for each in client.provisioning.images() if each.url.endswith("/root.raw")]
    again = client.images.golden(kept.key, "bare-again").wait()
    assert again.digest == f"sha256:{kept.key}"
    with client.create(name="bare", image="bare-again", disk_mb=96) as sandbox:
        assert sandbox.run(["cat", "/mark"]).check().stdout == "golden"
        sandbox.run(["sh", "-c", "head -c 60000000 /dev/zero >/large && sync"]).check()


def test_a_partition_that_is_no_root_is_refused_and_leaves_no_image(client: Client, bucket: str) -> None:
    with pytest.raises(InvalidInput, match="partition 1 holds nothing known"):
        client.images.golden(f"s3://{bucket}/disk.qcow2", "no-root", partition=1).wait()
    assert "no-root" not in [image.name for image in client.images.list()]


def test_a_volume_whose_file_system_grew_is_mounted_with_all_of_its_room(client: Client, bucket: str) -> None:
    url = f"s3://{bucket}/disk.qcow2"
    job = client.provisioning.start(url, "large", 128 / 1024, grow="filesystem", verify=True).filled()
    assert job.grown == "filesystem"
    volume = client.provisioning.volume("large")
    assert volume.format == "raw", "e2fsprogs read no qcow2: it was copied"
    assert "No problems found" in run("sgdisk", "-v", volume.path)
    client.provisioning.grow("large", 160 / 1024, grow="filesystem")
    assert "No problems found" in run("sgdisk", "-v", volume.path)
    client.link_volume("large", "large")
    with client.create(name="large", volumes=[{"name": "large", "mount": "/mnt/large"}]) as sandbox:
        room = sandbox.run(["stat", "-f", "-c", "%S %b", "/mnt/large"]).check().stdout.split()
        assert int(room[0]) * int(room[1]) > 130 << 20
        assert sandbox.run(["cat", "/mnt/large/mark"]).check().stdout == "golden"
        filled = "head -c 120000000 /dev/urandom >/mnt/large/full && sync && rm /mnt/large/full"
        sandbox.run(["sh", "-c", filled], user="root").check()
    client.delete_volume("large")
    client.provisioning.delete("large")


def room(sandbox: Sandbox) -> int:
    """Give the bytes that the file system of the volume tools has in all."""
    unit, count = sandbox.run(["stat", "-f", "-c", "%S %b", "/mnt/tools"]).check().stdout.split()
    return int(unit) * int(count)


@pytest.mark.parametrize("mode", ["clone", "copy"])
def test_a_provisioned_volume_is_attached_written_and_detached_again_and_again(
    client: Client, bucket: str, root_bytes: bytes, mode: str
) -> None:
    """A clone is a qcow2 file over the image, a copy a raw one: to a guest both are the file system in the disk."""
    url, name = f"s3://{bucket}/disk.qcow2", f"vm-{mode}"
    client.provisioning.start(url, name, 80 / 1024, mode=mode).filled()
    assert client.provisioning.volume(name).format == ("qcow2" if mode == "clone" else "raw")
    linked = client.link_volume("tools", name)
    assert (linked.provisioned, linked.pool, linked.size_mb) == (name, "file", 80)
    with client.create(name="user") as sandbox:
        sandbox.attach_volume("tools", "/mnt/tools", read_only=True)
        assert sandbox.run(["cat", "/mnt/tools/mark"]).check().stdout == "golden"
        summed = sandbox.run(["sh", "-c", f"{READ} | sha256sum | head -c 64"], user="root").check().stdout
        assert summed == hashlib.sha256(root_bytes).hexdigest(), "the guest sees the partition, byte by byte"
        sandbox.detach_volume("tools")
        for turn, size_mib in (("one", 96), ("two", 128)):
            sandbox.attach_volume("tools", "/mnt/tools")
            sandbox.run(["sh", "-c", f"echo {turn} >>/mnt/tools/turns; sync"], user="root").check()
            with pytest.raises(Conflict, match="attached to user"):
                client.provisioning.start(url, name, 80 / 1024, mode=mode)
            with pytest.raises(Conflict, match="attached to user"):
                client.provisioning.grow(name, 1.0)
            with pytest.raises(Conflict, match="attached to user"):
                client.provisioning.delete(name)
            sandbox.stop()
            with pytest.raises(Conflict, match="attached to user"):
                client.provisioning.start(url, name, 80 / 1024, mode=mode)
            with pytest.raises(Conflict, match="attached to user"):
                client.provisioning.grow(name, 1.0)
            assert client.provisioning.volume(name).size_bytes == client.volume("tools").size_mb << 20
            assert sandbox.run(["cat", "/mnt/tools/turns"]).check().stdout.split()[-1] == turn
            before = room(sandbox)
            sandbox.detach_volume("tools")
            # The sandbox runs on, with the slot that the volume was in: it comes back there, larger.
            client.provisioning.grow(name, size_mib / 1024, grow="filesystem" if mode == "copy" else "table")
            assert client.volume("tools").size_mb == size_mib
            sandbox.attach_volume("tools", "/mnt/tools")
            assert sandbox.run(["cat", "/mnt/tools/turns"]).check().stdout.split()[-1] == turn
            assert (room(sandbox) > before) == (mode == "copy")
            sandbox.detach_volume("tools")
    with pytest.raises(Conflict, match="is volume tools"):
        client.provisioning.delete(name)
    with client.create(name="later", volumes=[{"name": "tools", "mount": "/mnt/tools"}]) as sandbox:
        assert sandbox.run(["cat", "/mnt/tools/turns"]).check().stdout == "one\ntwo\n"
    client.provisioning.start(url, name, 132 / 1024, mode=mode).filled()
    assert client.volume("tools").size_mb == 132
    with client.create(name="anew", volumes=[{"name": "tools", "mount": "/mnt/tools"}]) as sandbox:
        assert sandbox.run(["ls", "/mnt/tools/turns"]).exit_code != 0, "it was filled anew"
        assert sandbox.run(["cat", "/mnt/tools/mark"]).check().stdout == "golden"
    client.delete_volume("tools")
    client.provisioning.delete(name)
