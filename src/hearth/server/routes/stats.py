"""GET /api/v1/sandboxes/{ref}/stats, /stats and /daemon: figures that wake nothing and count as no use."""

from __future__ import annotations

from hearth.api.schemas import ListPage, Nothing
from hearth.api.stats_operations import GET_DAEMON, GET_STATS, LIST_STATS
from hearth.api.stats_schemas import DaemonStats, HostStats, SandboxCounts, SandboxStats, SandboxStatsList
from hearth.control.metering import Usage
from hearth.control.overview import MIB, Glance, Host
from hearth.model import Heat, Sandbox
from hearth.server.resource import Call, bind
from hearth.server.views import HEATS
from hearth.version import VERSION


async def get(call: Call[Nothing]) -> SandboxStats:
    sandbox = await call.daemon.sandboxes.get(call.user, call.ref)
    usages = await call.daemon.overview.meter.read([sandbox.id])
    return stats_view(call, sandbox, usages.get(sandbox.id))


async def list_stats(call: Call[ListPage]) -> SandboxStatsList:
    query = call.input
    page = await call.daemon.sandboxes.list(call.user, labels={}, limit=query.limit, cursor=query.cursor)
    usages = await call.daemon.overview.meter.read([sandbox.id for sandbox in page.items])
    items = [stats_view(call, sandbox, usages.get(sandbox.id)) for sandbox in page.items]
    return SandboxStatsList(items=items, next_cursor=page.next_cursor)


async def daemon(call: Call[Nothing]) -> DaemonStats:
    glance = await call.daemon.overview.glance(call.user)
    return DaemonStats(
        version=VERSION,
        engine=glance.engine,
        started_at=glance.started_at,
        uptime_s=round((glance.now - glance.started_at).total_seconds(), 3),
        sandboxes=SandboxCounts(hot=glance.heats[Heat.HOT], warm=glance.heats[Heat.WARM], cold=glance.heats[Heat.COLD]),
        host=None if glance.host is None else host_view(glance.host, glance),
    )


def host_view(host: Host, glance: Glance) -> HostStats:
    """Give what administrators see of the host."""
    pool = glance.pool or {}
    return HostStats(
        cpus=host.cpus,
        load_1m=round(host.load_1m, 2),
        memory_total_bytes=host.memory.total_mib * MIB,
        memory_available_bytes=host.memory.available_mib * MIB,
        swap_free_bytes=host.memory.swap_free_mib * MIB,
        disk_total_bytes=host.disk_total_bytes,
        disk_free_bytes=host.disk_free_bytes,
        pool_ready=pool.get("ready", 0),
        pool_waiting=pool.get("waiting", 0),
    )


def stats_view(call: Call[ListPage] | Call[Nothing], sandbox: Sandbox, usage: Usage | None) -> SandboxStats:
    """Give what a sandbox uses; of one that was not got to yet only what it is."""
    memory = None if usage is None else usage.memory
    traffic = None if usage is None else usage.traffic
    return SandboxStats(
        id=sandbox.id,
        name=sandbox.spec.name,
        state=sandbox.state.value,
        heat=HEATS[call.daemon.sandboxes.heat(sandbox)],
        cpus=sandbox.spec.cpus,
        memory_mb=sandbox.spec.memory_mib,
        sampled_at=call.daemon.sandboxes.workshop.clock.now() if usage is None else usage.at,
        cpu_s=None if usage is None else usage.cpu_s,
        memory_unique_bytes=None if memory is None else memory.private_bytes + memory.swapped_bytes,
        memory_shared_bytes=None if memory is None else memory.shared_bytes,
        memory_swapped_bytes=None if memory is None else memory.swapped_bytes,
        disk_bytes=None if usage is None else usage.disk_bytes,
        net_received_bytes=None if traffic is None else traffic.received_bytes,
        net_sent_bytes=None if traffic is None else traffic.sent_bytes,
        net_received_packets=None if traffic is None else traffic.received_packets,
        net_sent_packets=None if traffic is None else traffic.sent_packets,
    )


BOUND = (bind(GET_STATS, get), bind(LIST_STATS, list_stats), bind(GET_DAEMON, daemon))
