"""GET /health, /healthz, /livez, /readyz: open to everybody, cheap, and they wake nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hearth.api.health_operations import HEALTH, HEALTHZ, LIVEZ, READYZ
from hearth.api.schemas import Health, Liveness, Nothing, Readiness
from hearth.control.readiness import OK
from hearth.server.resource import Call, Reply, bind
from hearth.version import VERSION


async def health(call: Call[Nothing]) -> Health:
    return Health(
        status="healthy",
        sandboxes=await call.daemon.sandboxes.count(),
        uptime=spoken(datetime.now(UTC) - call.daemon.started_at),
        version=VERSION,
    )


async def live(_call: Call[Nothing]) -> Liveness:
    return Liveness(status="ok")


async def ready(call: Call[Nothing]) -> Readiness | Reply[Readiness]:
    checks = dict(await call.daemon.readiness.check())
    if call.daemon.events.closed:
        checks["serving"] = "the daemon is stopping"
    if all(found == OK for found in checks.values()):
        return Readiness(status="ready", checks=checks)
    return Reply(value=Readiness(status="not ready", checks=checks), status=503)


def spoken(duration: timedelta) -> str:
    """Say a duration in whole seconds: ``2d 3h 0m 5s``, without leading zeros."""
    minutes, seconds = divmod(int(duration.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s")]
    while len(parts) > 1 and parts[0][0] == 0:
        parts.pop(0)
    return " ".join(f"{value}{unit}" for value, unit in parts)


BOUND = (bind(HEALTH, health), bind(HEALTHZ, live), bind(LIVEZ, live), bind(READYZ, ready))
