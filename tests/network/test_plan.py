from __future__ import annotations

import pytest

from hearth.errors import InvalidInput
from hearth.host.netlink import INTERFACE_NAME_MAX, mac_bytes
from hearth.network.plan import PLAN, TAP_NAME, namespace_name, namespace_prefix


def test_both_ends_are_the_only_hosts_of_one_private_network() -> None:
    assert PLAN.guest.network == PLAN.gateway.network
    assert PLAN.guest.network.is_private
    assert set(PLAN.guest.network.hosts()) == {PLAN.guest.ip, PLAN.gateway.ip}


@pytest.mark.parametrize("mac", [PLAN.guest_mac, PLAN.gateway_mac])
def test_mac_addresses_are_locally_administered_and_for_one_receiver(mac: str) -> None:
    first = mac_bytes(mac)[0]
    assert first & 0b10
    assert not first & 0b01


def test_the_ends_have_different_mac_addresses() -> None:
    assert PLAN.guest_mac != PLAN.gateway_mac


def test_the_tap_has_a_name_an_interface_can_have() -> None:
    assert 0 < len(TAP_NAME) <= INTERFACE_NAME_MAX


@pytest.mark.parametrize("tag", ["a1b2c3", "0badcafe"])
def test_a_namespace_is_named_for_its_daemon_and_its_sandbox(tag: str) -> None:
    name = namespace_name(tag, "sb-0123456789abcdef")
    assert name == f"hearth-{tag}-sb-0123456789abcdef"
    assert name.removeprefix(namespace_prefix(tag)) == "sb-0123456789abcdef"


@pytest.mark.parametrize("sandbox_id", ["", "..", "../../etc/passwd", "a/b", "Sb-1", "-x", "x" * 64, "a\n", "a\0"])
def test_an_id_that_could_leave_the_directory_of_names_is_refused(sandbox_id: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        namespace_name("a1b2c3", sandbox_id)
    assert caught.value.field == "sandbox_id"
