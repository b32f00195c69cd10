"""What takes minutes in a lab: services that go away in the middle, many orders at once, volumes made by hand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from tests.lab import bootable
from tests.lab.provisioner import GIB_OF_MIB, Provisioner
from tests.lab.site import LONG, has_own_services

from hearth.errors import Conflict
from hearth.sdk.client import Client

pytestmark = [
    pytest.mark.skipif(not os.environ.get(LONG), reason=f"takes minutes: 'make integration-test', or {LONG}=1"),
    pytest.mark.skipif(has_own_services(), reason="it stops services, and these are somebody's own"),
]

IMAGE_MIB = 32
VOLUME_GB = IMAGE_MIB * GIB_OF_MIB
ORDERS = 8
REFUSED_S = 120.0


@pytest.fixture(scope="module")
def image(provisioner: Provisioner, tmp_path_factory: pytest.TempPathFactory) -> str:
    return provisioner.upload(bootable.make(tmp_path_factory.mktemp("golden"), IMAGE_MIB))


def sha256_of(provisioner: Provisioner, path: str | None) -> str:
    assert path is not None
    return provisioner.lab.run("sha256sum", path).split()[0]


def expected(size_mib: int = IMAGE_MIB) -> str:
    return hashlib.sha256(bootable.content(size_mib)).hexdigest()


def test_postgresql_restarted_in_the_middle_of_a_job_costs_nothing(
    provisioner: Provisioner, client: Client, image: str
) -> None:
    job = client.provisioning.start(image, "restarted", VOLUME_GB, mode="copy")
    assert next(iter(job)).stage
    provisioner.lab.run("lab", "stop", "postgresql")
    stopped_s = float(provisioner.lab.run("date", "+%s.%N"))
    provisioner.lab.run("lab", "up", "postgresql")
    done = job.filled()
    assert done.finished_at is not None
    assert done.finished_at.timestamp() > stopped_s, "it had ended before: make the image larger"
    assert sha256_of(provisioner, done.volume_path) == expected()
    assert [volume.volume_name for volume in client.provisioning.volumes()] == ["restarted"]


def test_without_redis_orders_are_filled_all_the_same(provisioner: Provisioner, client: Client, image: str) -> None:
    provisioner.lab.run("lab", "stop", "redis")
    try:
        done = client.provisioning.start(image, "without", VOLUME_GB).filled()
    finally:
        provisioner.lab.run("lab", "up", "redis")
    assert done.status == "completed"
    assert sha256_of(provisioner, done.volume_path) == expected()


def test_eight_orders_at_once_for_an_image_that_is_not_here_are_all_filled(
    provisioner: Provisioner, client: Client, image: str
) -> None:
    for kept in client.provisioning.images():
        client.provisioning.forget(kept.key)

    jobs = [client.provisioning.start(image, f"vm{number}", VOLUME_GB, mode="clone") for number in range(ORDERS)]
    assert {job.filled().status for job in jobs} == {"completed"}
    assert {f"vm{number}" for number in range(ORDERS)} <= set(provisioner.volumes())
    assert len(client.provisioning.images()) == 1
    for number in (0, ORDERS - 1):
        volume = client.provisioning.volume(f"vm{number}")
        assert sha256_of(provisioner, volume.path) == expected()


def test_who_orders_too_fast_is_told_when_to_come_again_and_loses_nothing(provisioner: Provisioner, image: str) -> None:
    deadline_s = time.monotonic() + REFUSED_S
    headers = {"Authorization": f"Bearer {provisioner.token}", "Content-Type": "application/json"}
    with contextlib.closing(HTTPConnection(urlsplit(provisioner.url).netloc, timeout=REFUSED_S)) as connection:
        while True:  # asks for what is refused for its words, until it is for the rate
            connection.request("POST", "/api/v1/provision", body="{}", headers=headers)
            answer = connection.getresponse()
            told = json.loads(answer.read())
            if answer.status == 429:
                break
            assert answer.status == 400
            assert time.monotonic() < deadline_s, "nobody minded the rate"
    assert told["code"] == "rate_limited"
    assert int(answer.headers["Retry-After"]) >= 1
    with provisioner.client() as client:  # only now: the way to the lab keeps as many connections as were open at once
        done = client.provisioning.start(image, "later", VOLUME_GB).filled()
        assert (done.status, sha256_of(provisioner, done.volume_path)) == ("completed", expected())
        client.provisioning.delete("later")


def test_what_is_made_and_removed_by_hand_is_seen_at_once(provisioner: Provisioner, client: Client, image: str) -> None:
    provisioner.lab.shell("lvcreate -qq -y -V 32M --thinpool data/pool -n hand")
    with pytest.raises(Conflict):
        client.provisioning.start(image, "hand", VOLUME_GB).filled()
    provisioner.lab.run("lvremove", "-qq", "-y", "data/hand")
    ours = client.provisioning.start(image, "hand", VOLUME_GB).filled()
    assert ours.status == "completed"
    provisioner.lab.run("lvremove", "-qq", "-y", "data/hand")
    assert client.provisioning.volumes() == []
    again = client.provisioning.start(image, "hand", VOLUME_GB).filled()
    assert sha256_of(provisioner, again.volume_path) == expected()


def test_a_pool_of_libvirts_in_the_group_shows_a_volume_once_it_is_filled(
    provisioner: Provisioner, client: Client, image: str
) -> None:
    # libvirt lists no thin volumes: the group has no thin pool.
    provisioner.lab.shell(
        "vgcreate -q second /dev/loop1; "
        "virsh -q pool-define-as golden logical --source-name second --target /dev/second; virsh -q pool-start golden"
    )
    try:
        done = client.provisioning.start(image, "seen", VOLUME_GB, pool="golden").filled()
        assert "seen" in provisioner.lab.run("virsh", "-q", "vol-list", "golden").split()
        assert sha256_of(provisioner, done.volume_path) == expected()
        client.provisioning.delete("seen", pool="golden")
        assert "seen" not in provisioner.lab.run("virsh", "-q", "vol-list", "golden").split()
    finally:
        provisioner.lab.shell("virsh -q pool-destroy golden; virsh -q pool-undefine golden; vgremove -qq -f -y second")
