"""What networking can do on this host: tried on a network of its own, which leads nowhere and is gone afterwards."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass

from hearth.control.fabric import servers_of_host
from hearth.errors import HearthError
from hearth.host.netlink import RouteSocket
from hearth.network.fabric import FabricSettings
from hearth.network.machine import MachineNetwork
from hearth.network.policy import parse_policy
from hearth.network.uplink import default_links

POLICY = {"names": ["example.com"], "networks": ["192.0.2.0/24"], "audit": True}
RATES = {"upload_bytes_per_s": 1_000_000, "download_bytes_per_s": 1_000_000}


@dataclass(frozen=True, kw_only=True)
class NetworkReport:
    """What was found. An ``*_obstacle`` is None when the thing works, else the system's own words.

    ``ways_out`` are the links of this host's default routes; ``servers`` are asked for names of the world.
    """

    policy_obstacle: str | None
    rate_obstacle: str | None
    ways_out: tuple[str, ...]
    servers: tuple[str, ...]


async def try_networks(tag: str) -> NetworkReport:
    """Connect a machine that does not exist, under a policy and with rates.

    Args:
        tag: of the trial's namespaces; no daemon's.
    """
    obstacle = await _attempt(tag, POLICY)
    with RouteSocket() as route:
        ways_out = tuple(sorted(set(default_links(route))))
    return NetworkReport(
        policy_obstacle=obstacle,
        rate_obstacle=obstacle if obstacle is not None else await _attempt(tag, {**POLICY, **RATES}),
        ways_out=ways_out,
        servers=tuple(host for host, _ in servers_of_host()),
    )


async def _attempt(tag: str, policy: dict[str, object]) -> str | None:
    network = MachineNetwork(tag, fabric=FabricSettings(tell=lambda _: None))
    name = f"trial-{secrets.token_hex(4)}"
    try:
        try:
            await network.fabric.open()
            link = await network.setup(name, owner="doctor", policy=parse_policy(policy))
            os.close(link.tap_fd)
        finally:
            await network.teardown(name)
            await network.fabric.close()
    except (HearthError, OSError) as error:
        return str(error)
    return None
