"""Many orders at once: each is taken or told when to come again, none is lost, an image is fetched once for all."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.image.golden.web import Web, web_server
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.server.network import address_of, ask_over_tcp, bearer
from tests.server.test_provision import wait_for

from hearth.config import DataDirectory

pytestmark = [pytest.mark.slow, pytest.mark.daemon]

MIB = 1 << 20
GB = 1 / 1024
BURST = 20
PER_MINUTE, AT_ONCE = 120, 10
"""So that ten of a burst are told to wait half a second; as the daemon does by default, but faster."""
WAIT_S = 120.0


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as serving:
        serving.objects["/a.raw"] = os.urandom(3 * MIB)
        yield serving


@pytest.fixture
def data() -> Iterator[DataDirectory]:
    with data_directory() as made:
        publish_images(made)
        yield made


def options(web: Web) -> tuple[str, ...]:
    return ("--image-hosts", f"127.0.0.1:{web.port}", "--image-networks", "127.0.0.0/8", "--listen", "127.0.0.1:0")


Address = tuple[str, int]


def order(daemon: RunningDaemon, address: Address, web: Web, number: int) -> tuple[int, dict[str, str], dict[str, str]]:
    """Send one order over the network: there it is counted."""
    asked = {"image_url": web.url("/a.raw"), "volume_name": f"vm{number}", "volume_size_gb": 8 * GB}
    body = json.dumps({**asked, "image_type": "raw", "correlation_id": f"order {number}"}).encode()
    return ask_over_tcp(address, "POST", "/api/v1/provision", body, headers=bearer(daemon.token))


def test_twenty_orders_at_once_are_taken_or_told_when_to_come_again_and_none_is_lost(
    data: DataDirectory, web: Web
) -> None:
    web.flows.clear()
    rate = ("--rate", f"create={PER_MINUTE}/{AT_ONCE}", "--provision-jobs", "4")
    with running_daemon(data, *options(web), *rate) as daemon, daemon.client() as client:
        address, refused = address_of(daemon), 0

        def until_taken(number: int) -> str:
            nonlocal refused
            deadline_s = time.monotonic() + WAIT_S
            while True:
                status, headers, told = order(daemon, address, web, number)
                if status == 202:
                    return told["job_id"]
                assert (status, told["code"]) == (429, "rate_limited")
                assert time.monotonic() < deadline_s
                refused += 1
                time.sleep(int(headers["retry-after"]))

        began_s = time.monotonic()
        with ThreadPoolExecutor(BURST) as threads:
            jobs = list(threads.map(until_taken, range(BURST)))
        assert len(set(jobs)) == BURST
        slow_s = 60 * (BURST - AT_ONCE) / PER_MINUTE
        assert refused >= 1 or time.monotonic() - began_s > slow_s, "only of so slow a burst nobody had to wait"
        web.flows.set()
        for number, job_id in enumerate(jobs):
            assert wait_for(client, job_id, "completed", "failed").correlation_id == f"order {number}"
        names = sorted(volume.volume_name for volume in client.provisioning.volumes())
        assert names == sorted(f"vm{number}" for number in range(BURST))
        assert web.sent_bytes < 2 * 3 * MIB


def test_a_full_line_says_so_and_takes_the_rest_later(data: DataDirectory, web: Web) -> None:
    web.flows.clear()
    with running_daemon(data, *options(web), "--provision-queue", "5") as daemon, daemon.client() as client:
        address = address_of(daemon)
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda number: order(daemon, address, web, number), range(8)))
        taken = [told["job_id"] for status, _, told in answers if status == 202]
        assert len(taken) == 5
        for status, headers, told in answers:
            if status != 202:
                assert (status, told["code"], int(headers["retry-after"]) >= 1) == (429, "rate_limited", True)
                assert int(headers["retry-after-ms"]) <= 1000 * int(headers["retry-after"])
        web.flows.set()
        for job_id in taken:
            assert wait_for(client, job_id, "completed", "failed").status == "completed"
        assert order(daemon, address, web, 9)[0] == 202


def test_eight_jobs_at_once_fetch_their_image_once(data: DataDirectory, web: Web) -> None:
    web.flows.clear()
    with running_daemon(data, *options(web), "--provision-jobs", "8") as daemon, daemon.client() as client:
        start = client.provisioning.start
        jobs = [start(web.url("/a.raw"), f"vm{number}", 8 * GB, image_type="raw").job.job_id for number in range(8)]
        for job_id in jobs:
            wait_for(client, job_id, "running")
        web.flows.set()
        done = [wait_for(client, job_id, "completed", "failed") for job_id in jobs]
        assert [job.status for job in done] == ["completed"] * 8
        assert [job.cache_hit for job in done].count(False) == 1
        assert web.sent_bytes < 2 * 3 * MIB
