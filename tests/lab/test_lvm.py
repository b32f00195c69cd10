"""Volumes in LVM, on device-mapper: what differs between storages of what all of them promise, and what LVM alone does.

The whole suite: ``.venv/bin/python -m tests.lab pytest tests/contract/test_golden_backends.py -k lvm``.
"""

from __future__ import annotations

import os

import pytest
from tests.lab import site
from tests.lab.lab import Lab

CONTRACT = "tests/contract/test_golden_backends.py"
OWN = "tests/volume/golden/test_lvm_volumes.py"
STRANGERS = "tests/volume/golden/test_lvm_strangers.py"
JOBS = "tests/provisioning/test_lvm_jobs.py"
FULL = "tests/provisioning/test_lvm_full.py"
LONG = pytest.mark.skipif(
    not os.environ.get(site.LONG), reason=f"a minute each, emulated: 'make integration-test', or {site.LONG}=1"
)


@pytest.mark.parametrize(
    ("file", "chosen", "number"),
    [
        (CONTRACT, "lvm-thin and qcow2 and (copy_holds or outlives)", 2),
        pytest.param(CONTRACT, "lvm-thick and qcow2 and copy_holds", 1, marks=LONG),
        pytest.param(CONTRACT, "qcow2 and lvm and nor_replaced", 2, marks=LONG),
        pytest.param(CONTRACT, "lvm-thin and qcow2 and dead_job", 1, marks=LONG),
        (OWN, "thick_volume", 2),
        pytest.param(OWN, "pool_that or machine", 3, marks=LONG),
        pytest.param(OWN, "growing or none_of_ours", 3, marks=LONG),
        pytest.param(OWN, "swap and none", 1, marks=LONG),
        pytest.param(OWN, "swap and pool", 1, marks=LONG),
        pytest.param(OWN, "base or full_group", 2, marks=LONG),
        pytest.param(STRANGERS, "snapshots or imitates", 3, marks=LONG),
        pytest.param(STRANGERS, "metadata or no_device", 3, marks=LONG),
        pytest.param(STRANGERS, "another_daemon", 2, marks=LONG),
        (JOBS, "takes_the_room and pool-filesystem", 1),
        pytest.param(JOBS, "takes_the_room and none", 5, marks=LONG),
        pytest.param(JOBS, "linked", 2, marks=LONG),
        pytest.param(JOBS, "a_disk_that", 3, marks=LONG),
        pytest.param(JOBS, "killed", 1, marks=LONG),
        pytest.param(FULL, "guest_fills", 1, marks=LONG),
        pytest.param(FULL, "metadata_run_out", 1, marks=LONG),
    ],
)
def test_volumes_in_a_group_are_what_all_volumes_are(
    lab: Lab, subtests: pytest.Subtests, file: str, chosen: str, number: int
) -> None:
    outcomes = lab.pytest(file, "-k", chosen)
    outcomes.retell(subtests)
    assert len(outcomes.passed) == number
