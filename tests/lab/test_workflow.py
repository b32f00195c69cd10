"""From an image in object storage to a guest that boots, over the real HTTP API, with LVM and libvirt for real.

The first two tests are the short form that every run has; the others want ``HEARTH_LONG=1``.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from tests.lab import bootable
from tests.lab.provisioner import GIB_OF_MIB, Provisioner
from tests.lab.site import LONG

from hearth.errors import Conflict, HearthError
from hearth.sdk.client import Client

LONG_FORM = pytest.mark.skipif(
    not os.environ.get(LONG), reason=f"an emulated provisioner takes its time: 'make integration-test', or {LONG}=1"
)

IMAGE_MIB, VOLUME_MIB = 4, 8
EXPECTED = hashlib.sha256(bootable.content(IMAGE_MIB).ljust(VOLUME_MIB * bootable.MIB, b"\0")).hexdigest()


@pytest.fixture(scope="module")
def image(provisioner: Provisioner, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of an image that boots, with its checksum beside it."""
    return provisioner.upload(bootable.make(tmp_path_factory.mktemp("golden"), IMAGE_MIB))


def test_an_uploaded_image_becomes_a_volume_that_a_guest_boots_from(
    provisioner: Provisioner, client: Client, image: str
) -> None:
    job = client.provisioning.start(image, "vm1", VOLUME_MIB * GIB_OF_MIB, correlation_id="order 7").filled()
    assert (job.status, job.cache_hit, job.correlation_id) == ("completed", False, "order 7")
    assert job.volume_path is not None
    read = provisioner.lab.run("sha256sum", job.volume_path).split()[0]
    assert read == EXPECTED
    assert "hearth_job" in provisioner.volumes()["vm1"]["lv_tags"]

    with provisioner.domain("vm1", job.volume_path) as console:
        provisioner.wait_for_line(console, bootable.GREETING.decode().strip())
        with pytest.raises(Conflict, match="use"):
            client.provisioning.start(image, "vm1", VOLUME_MIB * GIB_OF_MIB).filled()
        with pytest.raises(Conflict, match="use"):
            client.provisioning.delete("vm1")
    assert provisioner.lab.run("sha256sum", job.volume_path).split()[0] == read


def test_the_next_order_finds_the_image_here_and_is_a_clone_of_it(
    provisioner: Provisioner, client: Client, image: str
) -> None:
    client.provisioning.fetch(image).filled()
    job = client.provisioning.start(image, "next", VOLUME_MIB * GIB_OF_MIB).filled()
    assert (job.status, job.cache_hit) == ("completed", True)
    found = provisioner.volumes()["next"]
    assert (found["pool_lv"], bool(found["origin"])) == ("pool", True)
    assert job.volume_path is not None
    read = provisioner.lab.run("sha256sum", job.volume_path).split()[0]
    assert read == EXPECTED


@LONG_FORM
def test_the_second_order_finds_the_image_here_and_shares_it_or_copies_it_as_it_says(
    provisioner: Provisioner, client: Client, image: str
) -> None:
    client.provisioning.start(image, "first", VOLUME_MIB * GIB_OF_MIB).filled()
    clone = client.provisioning.start(image, "clone", VOLUME_MIB * GIB_OF_MIB, mode="clone").filled()
    copy = client.provisioning.start(image, "copy", VOLUME_MIB * GIB_OF_MIB, mode="copy").filled()
    assert (clone.cache_hit, copy.cache_hit) == (True, True)
    found = provisioner.volumes()
    assert (found["clone"]["pool_lv"], bool(found["clone"]["origin"])) == ("pool", True)
    assert found["copy"]["origin"] == ""
    assert clone.volume_path is not None
    assert copy.volume_path is not None
    provisioner.lab.run("cmp", clone.volume_path, copy.volume_path)
    provisioner.lab.shell(f"echo mine | dd of={clone.volume_path} conv=notrunc,fsync status=none")
    third = client.provisioning.start(image, "third", VOLUME_MIB * GIB_OF_MIB).filled()
    assert third.volume_path is not None
    provisioner.lab.run("cmp", third.volume_path, copy.volume_path)


@LONG_FORM
def test_a_volume_of_about_the_size_is_filled_anew_and_of_another_size_refused(client: Client, image: str) -> None:
    client.provisioning.start(image, "vm", 400 * GIB_OF_MIB).filled()
    again = client.provisioning.start(image, "vm", 412 * GIB_OF_MIB).filled()
    assert client.provisioning.volume("vm").job_id == again.job_id
    with pytest.raises(Conflict, match="another size"):
        client.provisioning.start(image, "vm", 500 * GIB_OF_MIB).filled()
    assert client.provisioning.volume("vm").job_id == again.job_id


@LONG_FORM
def test_somebody_elses_volume_is_neither_filled_nor_deleted(
    provisioner: Provisioner, client: Client, image: str
) -> None:
    provisioner.lab.shell("lvcreate -qq -y -V 16M --thinpool data/pool -n foreign; echo precious > /dev/data/foreign")
    try:
        with pytest.raises(Conflict):
            client.provisioning.start(image, "foreign", VOLUME_MIB * GIB_OF_MIB).filled()
        with pytest.raises(HearthError):
            client.provisioning.delete("foreign")
        assert "foreign" not in [volume.volume_name for volume in client.provisioning.volumes()]
        assert provisioner.lab.run("head", "-c8", "/dev/data/foreign") == "precious"
    finally:
        provisioner.lab.run("lvremove", "-qq", "-y", "data/foreign")


@LONG_FORM
def test_a_bad_image_leaves_no_volume(provisioner: Provisioner, client: Client, tmp_path: Path) -> None:
    (tmp_path / "wrong.raw").write_bytes(b"x" * bootable.MIB)
    url = provisioner.upload(tmp_path / "wrong.raw")
    with pytest.raises(HearthError):  # it is no qcow2
        client.provisioning.start(url, "bad", VOLUME_MIB * GIB_OF_MIB).filled()
    with pytest.raises(HearthError, match="checksum"):
        client.provisioning.start(
            url, "bad", VOLUME_MIB * GIB_OF_MIB, image_type="raw", checksum=hashlib.sha256(b"y").hexdigest()
        ).filled()
    with pytest.raises(HearthError):
        client.provisioning.start("s3://images/missing.raw", "bad", 0.1, image_type="raw").filled()
    assert "bad" not in provisioner.volumes()
