"""What the doctor tells of the volume group, asked of the LVM of this host."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from hearth.config import ProvisioningSettings
from hearth.control.doctor import Status
from hearth.control.provisioning.volume_group import NAME, volume_group

NOWHERE = replace(ProvisioningSettings(), lvm_volume_group="hearth-no-such-group")

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("lvs") is None, reason="needs lvm2: run 'make develop' as root"),
]


async def test_a_group_that_somebody_named_and_is_not_there_is_a_warning() -> None:
    (finding,) = await volume_group(NOWHERE)
    assert (finding.name, finding.status) == (NAME, Status.WARNING)
    assert "hearth-no-such-group" in finding.found
    assert "vgcreate hearth-no-such-group" in finding.advice


async def test_a_group_that_nobody_asked_for_is_no_news() -> None:
    usual = ProvisioningSettings()
    for finding in await volume_group(usual):  # where this host has one of the usual name
        assert f"group {usual.lvm_volume_group}" in finding.found or f"{usual.lvm_volume_group}/" in finding.found


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x"])
async def test_what_is_no_groups_name_is_told_with_its_setting(name: str) -> None:
    (finding,) = await volume_group(replace(NOWHERE, lvm_volume_group=name))
    assert finding.status is Status.WARNING
    assert "invalid" in finding.found
