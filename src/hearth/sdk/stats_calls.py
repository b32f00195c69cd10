"""The calls about figures, as values; no I/O."""

from __future__ import annotations

from hearth.api.limits import MAX_LIST_LIMIT
from hearth.api.schemas import ListPage, Nothing
from hearth.api.stats_operations import GET_DAEMON, GET_STATS, LIST_STATS
from hearth.api.stats_schemas import DaemonStats, SandboxStats, SandboxStatsList
from hearth.sdk.call import Call, call_of


def stats(ref: str) -> Call[SandboxStats]:
    return call_of(GET_STATS, Nothing(), ref=ref)


def stats_page(cursor: str | None) -> Call[SandboxStatsList]:
    return call_of(LIST_STATS, ListPage(limit=MAX_LIST_LIMIT, cursor=cursor))


def daemon() -> Call[DaemonStats]:
    return call_of(GET_DAEMON, Nothing())
