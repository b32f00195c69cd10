"""What a daemon's settings make of its networks."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from hearth.config import Settings
from hearth.control.fabric import make_network, opened
from hearth.errors import InvalidInput
from hearth.host import namespaces
from hearth.network.events import EgressEvent
from hearth.network.plan import hub_name

TAG = "0badcafe"


def unheard(_: EgressEvent) -> None: ...


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"net_default": "everything"}, "net_default"),
        ({"uplink": "eth0"}, "uplink"),
        ({"uplink": "netns:"}, "uplink"),
        ({"uplink": "netns:../../proc/1/ns/net"}, "uplink"),
        ({"uplink": "netns:nobody-made-this"}, "uplink"),
        ({"uplink": "host", "dns_servers": ("dns.example.com",)}, "dns_servers"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_named(changed: dict[str, str], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make_network(TAG, replace(Settings(), **changed), unheard, Path("machines"))  # type: ignore[arg-type]
    assert caught.value.field == field


async def test_the_development_engine_is_connected_to_nothing() -> None:
    network = make_network(TAG, Settings(engine="local"), unheard, Path("machines"))
    assert (network.connects, network.resolvers) == (False, [])
    async with opened(network):
        assert hub_name(TAG) not in namespaces.list_names("hearth-")


@pytest.mark.root
async def test_networks_are_open_for_the_length_of_the_context_and_leave_nothing() -> None:
    tag = secrets.token_hex(4)
    network = make_network(tag, Settings(uplink="none", network_slots=1), unheard, Path("machines"))
    async with opened(network):
        assert network.resolvers == ["172.16.0.1"]
        await network.fabric.slots_ready()
        assert hub_name(tag) in namespaces.list_names(f"hearth-{tag}")
    assert namespaces.list_names(f"hearth-{tag}") == set()
