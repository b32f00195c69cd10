"""The kernel's command line as init reads it."""

from __future__ import annotations

import pytest

from hearth.agent.bringup.plan import BadPlan, Interface, Plan, read_plan


def test_a_full_command_line_is_read() -> None:
    line = (
        "quiet reboot=t panic=-1 hearth.root=/dev/vda hearth.rootfs=xfs hearth.ip=172.16.0.2/30 hearth.gw=172.16.0.1\n"
    )
    assert read_plan(line) == Plan(
        root="/dev/vda",
        root_kind="xfs",
        interface=Interface(address="172.16.0.2", netmask="255.255.255.252", gateway="172.16.0.1"),
        reboots_to_end=True,
    )


def test_an_empty_command_line_is_a_machine_without_disk_and_network() -> None:
    assert read_plan("") == Plan(root=None, root_kind="ext4", interface=None, reboots_to_end=False)


@pytest.mark.parametrize(
    "words",
    [
        "hearth.root=vda",
        "hearth.ip=172.16.0.2",
        "hearth.ip=172.16.0.2/33",
        "hearth.ip=172.16.0.2/-1",
        "hearth.ip=300.0.0.1/8",
        "hearth.ip=10.0.0.1/8 hearth.gw=router",
    ],
)
def test_malformed_values_are_refused(words: str) -> None:
    with pytest.raises(BadPlan):
        read_plan(words)
