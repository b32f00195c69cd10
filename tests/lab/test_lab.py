"""The lab itself: device-mapper, a volume group, services that answer, tests that run in it and are told of."""

from __future__ import annotations

import pytest
from tests.lab.lab import Lab

BAD = b"""
def test_bad():
    print("told")
    assert 1 == 2

def test_good():
    pass
"""


def test_its_services_answer_and_it_has_device_mapper(lab: Lab) -> None:
    lab.run("lab", "health")
    assert "thin-pool" in lab.run("dmsetup", "targets")
    assert lab.run("vgs", "--noheadings", "-o", "vg_name").split() == ["data"]


def test_thin_volumes_and_their_snapshots_work(lab: Lab) -> None:
    lab.shell("lvcreate -qq -y --type thin-pool -L 512M -n trial data")
    try:
        lab.shell("lvcreate -qq -y -V 1G --thinpool data/trial -n base; echo golden | dd of=/dev/data/base conv=fsync")
        lab.run("lvcreate", "-qq", "-y", "-s", "-kn", "-n", "clone", "data/base")
        assert lab.run("head", "-c6", "/dev/data/clone") == "golden"
    finally:
        lab.run("lvremove", "-qq", "-y", "data/trial")


def test_tests_run_in_it_and_each_is_told_of(lab: Lab, subtests: pytest.Subtests) -> None:
    outcomes = lab.pytest("tests/contract/test_golden_backends.py", "-k", "discarded or is_missing")
    assert len(outcomes.passed) >= 3
    outcomes.retell(subtests)


def test_what_fails_in_it_fails_here_with_its_output(lab: Lab) -> None:
    lab.sync()
    lab.run("sh", "-c", "cat > /tmp/test_it.py", stdin=BAD)
    outcomes = lab.pytest("/tmp/test_it.py", "--rootdir=/tmp", "-c", "/dev/null")
    assert [len(outcomes.passed), len(outcomes.failed)] == [1, 1]
    with pytest.raises(pytest.fail.Exception, match=r"(?s)assert 1 == 2.*told"):
        outcomes.check()
