"""Who asks, by what the request brings: a key, a signature, or the certificate of its connection."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.types import Message, Receive, Scope

from hearth.control.daemon import Daemon
from hearth.control.signatures import SignedRequest
from hearth.control.users import Caller
from hearth.errors import Unauthenticated
from hearth.server.proxy.door import EXTENSION

_HMAC = re.compile(rb"(?i:hmac) +([a-z0-9-]{1,32}):([0-9A-Fa-f]{1,128})")
MAX_NAMES = 16
"""Of one certificate that are looked up."""


async def identify(daemon: Daemon, scope: Scope, receive: Receive) -> tuple[Caller, Receive]:
    """Tell who asks, and give what reads the body from here on.

    Raises:
        Unauthenticated: nobody, any more or ever.
        HostUnfit: the key of a signature cannot be opened.
    """
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    if not given and (names := certified_names(scope)):
        return await daemon.users.certified(names), receive
    signed = _HMAC.fullmatch(given[0]) if len(given) == 1 else None
    if signed is None:
        return await daemon.users.identify(bearer_token(scope)), receive
    request = SignedRequest(
        key_id=signed[1].decode(),
        signature=signed[2].decode(),
        timestamp=_only(scope, b"x-timestamp"),
        method=scope["method"],
        target=(scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")).decode("latin-1"),
    )
    key = await daemon.signatures.known(request)
    body = await _whole(receive)
    return await daemon.signatures.check(request, key, body), _again(body, receive)


def bearer_token(scope: Scope) -> str:
    """Give the token of the Authorization header.

    Raises:
        Unauthenticated: there is none, or more than one, or it is of another kind.
    """
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, token = (given[0] if len(given) == 1 else b"").partition(b" ")
    if scheme.lower() != b"bearer" or not token.strip():
        raise Unauthenticated(
            "a token is needed",
            details="the request has no 'Authorization: Bearer …' header",
            resolution="set HEARTH_TOKEN, or read the token from admin.key in the data directory",
        )
    return token.strip().decode("latin-1")


def certified_names(scope: Scope) -> Sequence[str]:
    """Give the names of the client's certificate, which the listener has checked; none where it showed none."""
    exchange = scope.get("extensions", {}).get(EXTENSION)
    transport = getattr(exchange, "transport", None)
    connection = None if transport is None else transport.get_extra_info("ssl_object")
    certificate = None if connection is None else connection.getpeercert()
    return names_of(certificate or {})


def names_of(certificate: Mapping[str, Any]) -> Sequence[str]:
    """Give the common name and the alternative names (DNS, email, URI) of what ``SSLObject.getpeercert`` gave."""
    subject = [value for part in certificate.get("subject", ()) for name, value in part if name == "commonName"]
    others = [value for kind, value in certificate.get("subjectAltName", ()) if kind in ("DNS", "email", "URI")]
    return list(dict.fromkeys([*subject, *others]))[:MAX_NAMES]


def _only(scope: Scope, name: bytes) -> str:
    given = [value for known, value in scope["headers"] if known == name]
    return given[0].decode("latin-1") if len(given) == 1 else ""


async def _whole(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
