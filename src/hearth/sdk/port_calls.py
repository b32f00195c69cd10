"""The operations on ports as values; the rest is in ``calls``. Forwarding is no call: ``forwarding`` does it."""

from __future__ import annotations

from dataclasses import replace

from hearth.api.limits import MAX_LIST_LIMIT
from hearth.api.port_operations import (
    LIST_ALL_PORTS,
    LIST_ALL_PUBLICATIONS,
    LIST_PORTS,
    LIST_PUBLICATIONS,
    PUBLISH_PORT,
    UNPUBLISH_PORT,
)
from hearth.api.port_schemas import PortList, PublicationList, PublicationView, PublishPort
from hearth.api.schemas import ListPage, Nothing
from hearth.model import check_range
from hearth.sdk.call import LONG_S, Call, call_of, checked

MAX_PORT = 65_535


def ports(ref: str) -> Call[PortList]:
    return call_of(LIST_PORTS, Nothing(), ref=ref, timeout_s=LONG_S)


def all_ports() -> Call[PortList]:
    return call_of(LIST_ALL_PORTS, Nothing())


def publish(ref: str, port: int, alias: str | None) -> Call[PublicationView]:
    return call_of(PUBLISH_PORT, checked(PublishPort, {"port": port, "alias": alias}), ref=ref)


def publications(ref: str) -> Call[PublicationList]:
    return call_of(LIST_PUBLICATIONS, Nothing(), ref=ref)


def publications_page(cursor: str | None) -> Call[PublicationList]:
    return call_of(LIST_ALL_PUBLICATIONS, ListPage(limit=MAX_LIST_LIMIT, cursor=cursor))


def unpublish(ref: str, port: int) -> Call[Nothing]:
    check_port(port)
    operation = replace(UNPUBLISH_PORT, path=UNPUBLISH_PORT.path.replace("{port}", str(port)))
    return call_of(operation, Nothing(), ref=ref)


def check_port(port: int, *, what: str = "port") -> int:
    """Accept a TCP port of a sandbox; raises InvalidInput naming ``what``."""
    return check_range(port, 1, MAX_PORT, what=what)
