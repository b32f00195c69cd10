"""The operations that tell how the daemon is."""

from __future__ import annotations

from hearth.api.operation import Operation
from hearth.api.schemas import Health, Liveness, Nothing, Readiness

HEALTH = Operation(
    name="health",
    method="GET",
    path="/health",
    summary="Tell that the daemon is up, for how long and with how many sandboxes.",
    takes=Nothing,
    gives=Health,
    public=True,
)
HEALTHZ = Operation(
    name="healthz",
    method="GET",
    path="/healthz",
    summary="Tell that the process answers.",
    takes=Nothing,
    gives=Liveness,
    public=True,
)
LIVEZ = Operation(
    name="livez",
    method="GET",
    path="/livez",
    summary="Tell that the process answers.",
    takes=Nothing,
    gives=Liveness,
    public=True,
)
READYZ = Operation(
    name="readyz",
    method="GET",
    path="/readyz",
    summary="Tell whether the daemon could do its work now: 503 with the reasons when it could not.",
    takes=Nothing,
    gives=Readiness,
    statuses=(200, 503),
    public=True,
)

OPERATIONS = (HEALTH, HEALTHZ, LIVEZ, READYZ)
