"""Ports of sandboxes: which listen, and which are published for everybody.

The proxy itself (``ANY /sandboxes/{ref}/proxy/{port}/rest``) and the tunnel (``GET /sandboxes/{ref}/tunnel/{port}``
with ``Upgrade: hearth-tunnel``) are no rows of the table: they take any method and any body.
"""

from __future__ import annotations

from typing import Any

from hearth.api.life_operations import SANDBOX, WAKING
from hearth.api.limits import PREFIX
from hearth.api.operation import Operation
from hearth.api.port_schemas import PortList, PublicationList, PublicationView, PublishPort
from hearth.api.schemas import ListPage, Nothing
from hearth.errors import Code
from hearth.tenancy import KeyScope

TUNNEL_PROTOCOL = "hearth-tunnel"
"""What a tunnel's request wants to change to: raw bytes, each way with an end of its own."""
TUNNEL_PATH = f"{SANDBOX}/tunnel/{{port}}"

LIST_PORTS = Operation(
    name="list_ports",
    method="GET",
    path=f"{SANDBOX}/ports",
    summary="List the ports that something in the sandbox listens on; wakes it.",
    takes=Nothing,
    gives=PortList,
    errors=WAKING,
    scope=KeyScope.EXEC,
)
LIST_ALL_PORTS = Operation(
    name="list_all_ports",
    method="GET",
    path=f"{PREFIX}/ports",
    summary="List the listening ports of all the caller's sandboxes that run; wakes none.",
    takes=Nothing,
    gives=PortList,
)
PUBLISH_PORT = Operation(
    name="publish_port",
    method="POST",
    path=f"{SANDBOX}/publish",
    summary="Give a port a public URL, which wakes the sandbox from any state; the same again gives the existing one.",
    takes=PublishPort,
    gives=PublicationView,
    statuses=(201, 200),
    errors=(Code.NOT_FOUND, Code.CONFLICT),
)
LIST_PUBLICATIONS = Operation(
    name="list_publications",
    method="GET",
    path=f"{SANDBOX}/publish",
    summary="List the public URLs of a sandbox; wakes nothing.",
    takes=Nothing,
    gives=PublicationList,
    errors=(Code.NOT_FOUND,),
)
LIST_ALL_PUBLICATIONS = Operation(
    name="list_all_publications",
    method="GET",
    path=f"{PREFIX}/publications",
    summary="List all the caller's public URLs (everybody's for an administrator), oldest first, a page at a time.",
    takes=ListPage,
    gives=PublicationList,
)
UNPUBLISH_PORT = Operation(
    name="unpublish_port",
    method="DELETE",
    path=f"{SANDBOX}/publish/{{port}}",
    summary="Take a port's public URL away.",
    takes=Nothing,
    gives=Nothing,
    statuses=(204,),
    errors=(Code.NOT_FOUND,),
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (
    LIST_PORTS,
    LIST_ALL_PORTS,
    PUBLISH_PORT,
    LIST_PUBLICATIONS,
    LIST_ALL_PUBLICATIONS,
    UNPUBLISH_PORT,
)
