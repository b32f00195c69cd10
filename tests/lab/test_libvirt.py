"""Volumes in a libvirt pool that is a volume group, on device-mapper.

The whole suite: ``.venv/bin/python -m tests.lab pytest tests/contract/test_golden_backends.py -k libvirt-logical``.
"""

from __future__ import annotations

import pytest
from tests.lab.lab import Lab
from tests.lab.test_lvm import CONTRACT, LONG

OWN = "tests/volume/golden/test_libvirt_logical.py"


@pytest.mark.parametrize(
    ("file", "chosen"),
    [
        (CONTRACT, "libvirt-logical and qcow2 and copy_holds"),
        pytest.param(CONTRACT, "libvirt-logical and qcow2 and replaced_when", marks=LONG),
        pytest.param(OWN, "one_pool", marks=LONG),
        pytest.param(OWN, "boots", marks=LONG),
    ],
)
def test_volumes_in_a_logical_pool_are_what_all_volumes_are(
    lab: Lab, subtests: pytest.Subtests, file: str, chosen: str
) -> None:
    outcomes = lab.pytest(file, "-k", chosen)
    outcomes.retell(subtests)
    assert len(outcomes.passed) == 1
