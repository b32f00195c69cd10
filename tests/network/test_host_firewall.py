"""Beside what is on a host already: its own firewall, one that drops everything, and br_netfilter."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.network.stage import HOST_ADDRESS, PUBLIC, SILENCE_S, Guest, Stage, inside, ip, stage, within

from hearth.network.plan import hub_name
from hearth.network.policy import PUBLIC as EVERYTHING
from hearth.network.policy import parse_policy

pytestmark = pytest.mark.root

OWN = """
table inet own {
  set friends { type ipv4_addr; elements = { 203.0.113.254 } }
  chain input { type filter hook input priority 0; policy drop; ip saddr @friends accept; iifname "lo" accept; }
  chain forward { type filter hook forward priority 0; policy drop; }
  chain output { type filter hook output priority 0; policy accept; }
}
table ip nat {
  chain postrouting { type nat hook postrouting priority 100; policy accept; oifname "docker0" masquerade; }
}
"""


@pytest.fixture
async def scene() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


def load(space: str, rules: str) -> None:
    subprocess.run(["ip", "netns", "exec", space, "nft", "-f", "-"], input=rules, text=True, check=True)


def tables(space: str) -> dict[str, str]:
    names = [line.removeprefix("table ") for line in inside(space, "nft", "list", "tables").splitlines()]
    return {name: inside(space, "nft", "list", "table", *name.split()) for name in names}


async def test_beside_a_firewall_that_drops_everything_owners_machines_still_talk_and_the_world_stays_closed(
    scene: Stage,
) -> None:
    load(scene.host, OWN)
    before = {name: text for name, text in tables(scene.host).items() if "hearth" not in name}
    one, two = await scene.guest("sb-1", policy=EVERYTHING), await scene.guest("sb-2")
    assert await one.dial(two.address) == "sb-2"
    assert await one.dial(PUBLIC[0], wait_s=SILENCE_S) == "silence", "what the host drops, nothing of ours lets pass"
    assert await one.dial(HOST_ADDRESS) == "refused"
    after = {name: text for name, text in tables(scene.host).items() if "hearth" not in name}
    assert after == before
    load(
        scene.host,
        f'insert rule inet own forward iifname "hearth-{scene.tag}" accept\n'
        f'insert rule inet own forward oifname "hearth-{scene.tag}" ct state established accept\n',
    )
    assert await one.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"
    await scene.network.fabric.refresh()
    assert set(tables(scene.host)) == {"inet own", "ip nat", f"inet hearth-{scene.tag}"}


async def test_what_is_not_ours_passes_the_host_as_before(scene: Stage) -> None:
    """Machines of somebody else, a cluster's for example, that use the host as their router."""
    ip(scene.host, "link", "add", "cni0", "type", "veth", "peer", "name", "eth0", "netns", scene.pod)
    ip(scene.host, "addr", "add", "10.42.0.1/24", "dev", "cni0")
    ip(scene.pod, "addr", "add", "10.42.0.2/24", "dev", "eth0")
    for space, link in ((scene.host, "cni0"), (scene.pod, "eth0")):
        ip(space, "link", "set", link, "up")
    ip(scene.pod, "route", "add", "default", "via", "10.42.0.1")
    ip(scene.world, "route", "add", "10.42.0.0/24", "via", HOST_ADDRESS)
    await within(scene.host, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("1"))
    guest = await scene.guest("sb-1", policy=EVERYTHING)
    pod = Guest(link=guest.link, space=scene.pod, tap_fd=-1)
    assert await pod.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"
    assert await pod.dial(HOST_ADDRESS) == "host"
    assert await guest.dial("10.42.0.2") == "refused"
    for line in inside(scene.host, "nft", "list", "table", "inet", f"hearth-{scene.tag}").splitlines():
        decides = any(word in line for word in ("drop", "reject", "masquerade", "accept"))
        if decides and "policy accept" not in line:
            assert f'"hearth-{scene.tag}"' in line, f"a rule that is not about our own link: {line}"


@pytest.mark.skipif(not Path("/proc/sys/net/bridge").exists(), reason="br_netfilter is not loaded on this host")
async def test_br_netfilter_does_not_send_bridged_packets_through_any_firewall(scene: Stage) -> None:
    load(scene.host, OWN)

    def turn_on() -> None:
        Path("/proc/sys/net/bridge/bridge-nf-call-iptables").write_text("1")

    def look() -> str:
        return Path("/proc/sys/net/bridge/bridge-nf-call-iptables").read_text().strip()

    await within(scene.host, turn_on)
    one, two = await scene.guest("sb-1"), await scene.guest("sb-2")
    assert await within(hub_name(scene.tag), look) == "0"
    assert await one.dial(two.address) == "sb-2"
    # The proof that it would have mattered: with it on, the hub's own rules see neighbours' packets and refuse them.
    await within(hub_name(scene.tag), turn_on)
    assert await two.dial(one.address, wait_s=SILENCE_S) != "sb-1"
    await scene.network.fabric.close()
    await scene.network.fabric.open()
    assert await within(hub_name(scene.tag), look) == "0", "set again whenever a daemon opens the hub"
    assert await two.dial(one.address) == "sb-1"


async def test_an_operator_can_list_our_rules_and_nft_takes_them_for_its_own(scene: Stage) -> None:
    guest = await scene.guest("sb-1", policy=parse_policy({"names": ["*.example.com"], "audit": True}))
    # Not the hub: a mark that is an address is more than the language of nft can say.
    for space in (guest.link.namespace, scene.host):
        listing = inside(space, "nft", "-s", "list", "ruleset")
        assert "table inet hearth" in listing
        load(space, "flush ruleset\n" + listing)
        assert inside(space, "nft", "-s", "list", "ruleset") == listing


async def test_two_daemons_on_one_host_do_not_meet(scene: Stage) -> None:
    one = await scene.guest("sb-1", policy=EVERYTHING)
    async with asyncio.timeout(60), stage() as other:
        two = await other.guest("sb-1", policy=EVERYTHING)
        assert one.address == two.address, "the same owner and name, each on its own daemon"
        assert await one.dial(two.address) == "refused", "its own address"
        assert await two.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"
    assert await one.dial(PUBLIC[0]) == f"world {PUBLIC[0]}"
