"""What a proxy changes in heads, as pure functions of one head: hop-by-hop fields, Host, forwarding, locations.

Names are in lower case. Source of the rules: RFC 9110, section 7.6, and RFC 9112, section 6.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

Headers = Sequence[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
FORWARDING = frozenset({b"forwarded", b"via", b"x-real-ip"})
"""Who came before us is for us to say: what a stranger says of it is dropped, with all of X-Forwarded-*."""
TOKEN_HEADER = b"x-hearth-token"
NOT_IN_TRAILERS = (
    HOP_BY_HOP
    | FRAMING
    | FORWARDING
    | {b"host", b"authorization", b"cookie", b"set-cookie", b"trailer", b"expect", TOKEN_HEADER}
)
OF_THE_ORIGIN = frozenset(
    {
        b"alt-svc",
        b"clear-site-data",
        b"public-key-pins",
        b"service-worker-allowed",
        b"strict-transport-security",
    }
)
"""What a server says with these holds for all of its origin; where only the path is its own it may not."""
Withheld = frozenset[bytes]
"""Secrets of ours: whatever holds one of them is for nobody's server."""
NONE_WITHHELD: Withheld = frozenset()


@dataclass(frozen=True, kw_only=True)
class Route:
    """How a request comes to a sandbox: what the client sees, and what the server in the sandbox sees.

    ``prefix`` is the part of the client's path that the server does not see, without a slash at its end.
    """

    scheme: bytes
    host: bytes
    prefix: bytes
    port: int
    client: str | None

    @property
    def inner_host(self) -> bytes:
        return b"localhost:%d" % self.port

    @property
    def outer_origin(self) -> bytes:
        return self.scheme + b"://" + self.host


def request_headers(
    given: Headers,
    route: Route,
    *,
    upgrade: bytes | None,
    drop: frozenset[bytes] = frozenset(),
    withheld: Withheld = NONE_WITHHELD,
) -> list[tuple[bytes, bytes]]:
    """Give the fields for the server in the sandbox; framing and Expect stay as the client has them.

    An Origin that is the client's view of this server becomes the server's own view: it compares the two.

    Args:
        upgrade: the protocol the client wants to change to, if it does.
        drop: fields that are ours and not the server's, such as a token.
        withheld: fields with these in their values are left out, whatever they are called.
    """
    unwanted = HOP_BY_HOP | FORWARDING | drop | {b"host"} | _connection_options(given)
    headers = [(b"host", route.inner_host)]
    for name, value in given:
        if name == b"transfer-encoding":
            headers.append((name, b"chunked"))
        elif name == b"te" and b"trailers" in _tokens([value]):
            headers.append((name, b"trailers"))
        elif name in unwanted or name.startswith(b"x-forwarded-") or holds(value, withheld):
            continue
        elif name == b"origin" and value.lower() == route.outer_origin.lower():
            headers.append((name, b"http://" + route.inner_host))
        else:
            headers.append((name, value))
    headers += _forwarded(route)
    hops = [b"upgrade"] if upgrade is not None else []
    if any(name == b"te" for name, _ in headers):
        hops.append(b"te")
    if hops:
        headers.append((b"connection", b", ".join(hops)))
    if upgrade is not None:
        headers.append((b"upgrade", upgrade))
    return headers


def response_headers(given: Headers, route: Route) -> list[tuple[bytes, bytes]]:
    """Give the fields for the client, without any that frame the body: whoever writes the answer adds those."""
    unwanted = HOP_BY_HOP | FRAMING | _connection_options(given) | (OF_THE_ORIGIN if route.prefix else frozenset())
    return [
        (name, location(value, route) if name in (b"location", b"content-location") else value)
        for name, value in given
        if name not in unwanted
    ]


def trailers(given: Headers, *, withheld: Withheld = NONE_WITHHELD) -> list[tuple[bytes, bytes]]:
    """Give the trailers that may be passed on: none that would change how a message is read, nor who it is from."""
    return [
        (name, value)
        for name, value in given
        if name not in NOT_IN_TRAILERS and not name.startswith(b"x-forwarded-") and not holds(value, withheld)
    ]


def holds(value: bytes, withheld: Withheld) -> bool:
    """Tell whether a secret is in there."""
    return any(secret in value for secret in withheld)


def query_without(query: bytes, withheld: Withheld) -> bytes:
    """Take the parameters out of a query string in which there is a secret; the others stay byte by byte."""
    if not holds(query, withheld):
        return query
    return b"&".join(each for each in query.split(b"&") if not holds(each, withheld))


def location(value: bytes, route: Route) -> bytes:
    """Give a Location as the client has to see it: one that leads to the server itself leads to it from outside."""
    for host in (route.inner_host, b"127.0.0.1:%d" % route.port):
        inner = b"http://" + host
        if value == inner or value.startswith((inner + b"/", inner + b"?", inner + b"#")):
            rest = value[len(inner) :]
            return route.outer_origin + route.prefix + (rest if rest.startswith(b"/") else b"/" + rest)
    if value.startswith(b"/") and not value.startswith(b"//"):
        return route.prefix + value
    return value


def upgrade_of(given: Headers) -> bytes | None:
    """Tell which protocol a request wants to change to, or a response changes to; None for neither."""
    if b"upgrade" not in _connection_options(given):
        return None
    return next((value for name, value in given if name == b"upgrade"), None)


def without_parameter(query: bytes, name: str) -> tuple[bytes, str | None]:
    """Take one parameter out of a query string: what is left, byte by byte where it was not there, and its value."""
    if name.encode() not in query:
        return query, None
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    found = next((value for key, value in pairs if key == name), None)
    if found is None:
        return query, None
    return urlencode([(key, value) for key, value in pairs if key != name]).encode(), found


def head(status_line: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write a head, its empty line included."""
    lines = [status_line, *(name + b": " + value for name, value in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _forwarded(route: Route) -> list[tuple[bytes, bytes]]:
    told = [(b"x-forwarded-host", route.host), (b"x-forwarded-proto", route.scheme)]
    if route.prefix:
        told.append((b"x-forwarded-prefix", route.prefix))
    if route.client is not None:
        told.insert(0, (b"x-forwarded-for", route.client.encode()))
    return told


def _connection_options(given: Headers) -> frozenset[bytes]:
    return frozenset(_tokens(value for name, value in given if name == b"connection"))


def _tokens(values: Iterable[bytes]) -> set[bytes]:
    return {token.strip().lower() for value in values for token in value.split(b",")}
