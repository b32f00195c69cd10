"""The libvirt of this host's operator, as a line for the doctor."""

from __future__ import annotations

from hearth.config import ProvisioningSettings
from hearth.control.doctor import Finding, ok, warning
from hearth.errors import HearthError
from hearth.host.libvirt import Libvirt
from hearth.host.libvirt_binding import Connection

NAME = "libvirt"
TIMEOUT_S = 15.0
POOLS_SHOWN = 8


async def libvirt_pools(settings: ProvisioningSettings) -> list[Finding]:
    """Judge whether pools can be used, where somebody wants them."""
    if settings.libvirt_uri is None:
        return []
    libvirt = Libvirt(settings.libvirt_uri, call_timeout_s=TIMEOUT_S)
    try:
        version, pools = await libvirt.call(_look)
    except HearthError as error:
        return [warning(NAME, f"{error.brief}: {error.details}", error.resolution)]
    finally:
        await libvirt.close()
    major, minor, release = version // 1_000_000, version // 1000 % 1000, version % 1000
    said = f"{settings.libvirt_uri}: libvirt {major}.{minor}.{release}"
    if not pools:
        return [warning(NAME, f"{said}, without an active pool", "make one: virsh pool-define-as, virsh pool-start")]
    shown = ", ".join(sorted(pools)[:POOLS_SHOWN]) + (", …" if len(pools) > POOLS_SHOWN else "")
    return [ok(NAME, f"{said}; pools: {shown}")]


def _look(connection: Connection) -> tuple[int, list[str]]:
    pools = [pool.name() for pool in connection.listAllStoragePools() if pool.isActive()]
    return connection.getLibVersion(), pools
