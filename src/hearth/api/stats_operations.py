"""Figures: of one sandbox, of all the caller has, of the daemon."""

from __future__ import annotations

from typing import Any

from hearth.api.life_operations import SANDBOX
from hearth.api.limits import PREFIX
from hearth.api.operation import Operation
from hearth.api.schemas import ListPage, Nothing
from hearth.api.stats_schemas import DaemonStats, SandboxStats, SandboxStatsList
from hearth.errors import Code

GET_STATS = Operation(
    name="get_stats",
    method="GET",
    path=f"{SANDBOX}/stats",
    summary="Tell what a sandbox uses: CPU time, memory of its own and shared, disk, network; wakes nothing.",
    takes=Nothing,
    gives=SandboxStats,
    errors=(Code.NOT_FOUND,),
)
LIST_STATS = Operation(
    name="list_stats",
    method="GET",
    path=f"{PREFIX}/stats",
    summary="Tell what the caller's sandboxes use, oldest first, a page at a time; wakes nothing.",
    takes=ListPage,
    gives=SandboxStatsList,
)
GET_DAEMON = Operation(
    name="get_daemon",
    method="GET",
    path=f"{PREFIX}/daemon",
    summary="Tell of the daemon: version, engine, sandboxes by heat; administrators see the host, too.",
    takes=Nothing,
    gives=DaemonStats,
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (GET_STATS, LIST_STATS, GET_DAEMON)
