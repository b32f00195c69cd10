from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hearth.errors import InvalidInput, Unavailable
from hearth.network.addresses import SUPERNET, Ledger, gateway_of, mac_of
from hearth.network.plan import PLAN, bridge_name, named_address, port_name
from hearth.network.uplink import RANGE, uplink_network

SMALL = Ledger(supernet=IPv4Network("100.64.0.0/24"), block_prefix=29)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "give"]), st.sampled_from("abcdefghijklmnop"), st.sampled_from(["ann", "bob", "cid"])
    )
)


def test_an_owner_gets_a_thousand_addresses_from_one_block_and_more_from_the_next() -> None:
    ledger = Ledger()
    for number in range(1022):
        ledger, _ = ledger.allocate(f"sb-{number}", "ann")
    leases = list(ledger.leases.values())
    assert len({lease.address for lease in leases}) == 1022
    assert [len({each.address for each in leases if each.block == block}) for block in ledger.blocks_of("ann")] in (
        [1021, 1],
        [1, 1021],
    )
    for lease in leases:
        outer = (lease.block.network_address, lease.block.broadcast_address, gateway_of(lease.block))
        assert lease.address in lease.block
        assert lease.address not in outer


def test_the_same_sandbox_finds_its_address_again() -> None:
    ledger, first = SMALL.allocate("sb-1", "ann")
    again, second = ledger.allocate("sb-1", "ann")
    assert again is ledger
    assert second is first
    _, third = ledger.release("sb-1").allocate("sb-1", "ann")
    assert third == first
    with pytest.raises(InvalidInput) as caught:
        ledger.allocate("sb-1", "bob")
    assert caught.value.field == "owner"


@settings(deadline=None)
@given(STEPS)
def test_no_address_is_given_twice_and_no_block_has_two_owners(steps: list[tuple[str, str, str]]) -> None:
    ledger = SMALL
    owners: dict[str, str] = {}
    for what, sandbox_id, owner in steps:
        if what == "give":
            ledger = ledger.release(sandbox_id)
            owners.pop(sandbox_id, None)
        elif owners.get(sandbox_id, owner) == owner:
            ledger, lease = ledger.allocate(sandbox_id, owner)
            owners[sandbox_id] = owner
            assert ledger.at(lease.address) == lease
        leases = ledger.leases.values()
        assert {lease.sandbox_id: lease.owner for lease in leases} == owners
        assert len({lease.address for lease in leases}) == len(leases)
        assert all(ledger.blocks[lease.block] == lease.owner for lease in leases)
        assert set(ledger.blocks) == {lease.block for lease in leases}, "empty blocks are given back"


def test_a_full_supernet_says_so_and_is_unharmed() -> None:
    ledger = SMALL
    for number in range(32):
        ledger, _ = ledger.allocate(f"sb-{number}", f"owner-{number}")
    with pytest.raises(Unavailable, match="no addresses are left"):
        ledger.allocate("sb-x", "late")
    ledger, _ = ledger.release("sb-7").allocate("sb-x", "late")
    assert len(ledger.blocks) == 32


@pytest.mark.parametrize(("supernet", "prefix"), [("10.0.0.0/8", 21), ("10.0.0.0/8", 30), ("10.0.0.0/25", 24)])
def test_block_sizes_that_cannot_be_are_refused(supernet: str, prefix: int) -> None:
    with pytest.raises(InvalidInput) as caught:
        Ledger(supernet=IPv4Network(supernet), block_prefix=prefix)
    assert caught.value.field == "block_prefix"


def test_names_hold_the_address_and_fit_a_link() -> None:
    block = IPv4Network("100.127.252.0/22")
    for name in (bridge_name(block), port_name(IPv4Address("100.127.255.254"))):
        assert len(name.encode()) <= 15
        assert named_address(name) in block
    for stranger in ("b123", "m123456789", "up0", "s12345678", "b1234567g", ""):
        assert named_address(stranger) is None


def test_a_mac_address_is_local_for_one_receiver_and_follows_from_the_address() -> None:
    one, two = mac_of(IPv4Address("100.64.0.2")), mac_of(IPv4Address("100.64.0.3"))
    assert one == "02:68:64:40:00:02" != two
    assert one not in (PLAN.guest_mac, PLAN.gateway_mac)


@pytest.mark.parametrize("tag", ["00000000", "0badcafe", "ffffffff"])
def test_uplinks_lie_apart_from_what_sandboxes_have(tag: str) -> None:
    network = uplink_network(tag)
    assert network.num_addresses == 4
    assert network.subnet_of(RANGE)
    assert not network.overlaps(SUPERNET)
    assert uplink_network(tag) == network
