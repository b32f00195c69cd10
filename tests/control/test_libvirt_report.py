"""What the doctor says of a libvirt: nothing where nobody wants one, its pools, or what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.libvirtd import Libvirtd

from hearth.config import ProvisioningSettings
from hearth.control.doctor import Status
from hearth.control.provisioning.libvirt_report import libvirt_pools


async def test_nobody_hears_of_a_libvirt_that_nobody_wants() -> None:
    assert await libvirt_pools(ProvisioningSettings()) == []


@pytest.mark.libvirt
async def test_its_pools_are_told(libvirtd: Libvirtd, tmp_path: Path) -> None:
    with libvirtd.pool(tmp_path) as pool:
        (finding,) = await libvirt_pools(ProvisioningSettings(libvirt_uri=libvirtd.uri))
    assert finding.status is Status.OK
    assert pool in finding.found


@pytest.mark.libvirt
async def test_one_that_does_not_answer_is_a_warning_with_advice(libvirtd: Libvirtd, tmp_path: Path) -> None:
    uri = f"qemu+unix:///system?socket={tmp_path}/nowhere"
    (finding,) = await libvirt_pools(ProvisioningSettings(libvirt_uri=uri))
    assert (finding.status, "virsh -c" in finding.advice) == (Status.WARNING, True)
