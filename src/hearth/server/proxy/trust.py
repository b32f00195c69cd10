"""Who asks, behind proxies of the operator's: what they tell of a client is believed, what anybody else tells is not.

The right-most address that is no trusted proxy's is the client's: everything to its left he may have written himself.
Only the one header that the operator's proxies write is read; another they would pass on as the client sent it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

from starlette.types import Scope

from hearth.errors import InvalidInput

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address
Header = Literal["x-forwarded-for", "forwarded"]
HEADERS: Sequence[Header] = ("x-forwarded-for", "forwarded")
SCHEMES = frozenset({"http", "https"})
MOST_HOPS = 32
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+)(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)")
_PAIR = re.compile(r'\s*([A-Za-z-]+)=(?:"([^"\\]*)"|([^\s";]+))\s*')


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a request comes from: the client's address, None on a Unix socket, and the scheme that he used."""

    client: str | None
    scheme: str


@dataclass(frozen=True, kw_only=True)
class Trust:
    """The proxies that are believed, and the header in which they tell of their clients."""

    networks: tuple[Network, ...] = ()
    header: Header = "x-forwarded-for"

    def origin(self, scope: Scope) -> Origin:
        """Tell where a request comes from."""
        peer, scheme = scope.get("client"), scope["scheme"]
        if peer is None:
            return Origin(client=None, scheme=scheme)
        if not self.covers(peer[0]):
            return Origin(client=peer[0], scheme=scheme)
        if self.header == "forwarded":
            return self._forwarded(scope, peer[0], scheme)
        client = peer[0]
        for text in _from_the_right(scope, b"x-forwarded-for"):
            address = read_node(text)
            if address is None:
                break
            client = str(address)
            if not self.covers(client):
                break
        said = next(iter(_from_the_right(scope, b"x-forwarded-proto")), "").lower()
        return Origin(client=client, scheme=said if said in SCHEMES else scheme)

    def covers(self, address: str) -> bool:
        """Tell whether an address is a trusted proxy's."""
        parsed = read_node(address)
        return parsed is not None and any(
            parsed.version == network.version and parsed in network for network in self.networks
        )

    def _forwarded(self, scope: Scope, peer: str, scheme: str) -> Origin:
        """Read RFC 7239's header."""
        client = peer
        for element in _from_the_right(scope, b"forwarded"):
            pairs = read_pairs(element)
            address = None if pairs is None else read_node(pairs.get("for", ""))
            if pairs is None or address is None:
                break
            client = str(address)
            said = pairs.get("proto", "").lower()
            scheme = said if said in SCHEMES else scheme
            if not self.covers(client):
                break
        return Origin(client=client, scheme=scheme)


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Read ``192.0.2.0/24`` or ``2001:db8::1``, each.

    Raises:
        InvalidInput: one is no address and no network, or is everybody.
    """
    networks: list[Network] = []
    for text in texts:
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise InvalidInput(
                "invalid --public-trusted-proxy",
                details=f"{text[:80]!r}: {error}",
                resolution="write an address or a network, as 192.0.2.0/24",
                field="public-trusted-proxy",
            ) from error
        if network.prefixlen == 0:
            raise InvalidInput(
                "invalid --public-trusted-proxy",
                details=f"{text!r} is everybody: any client could tell any address as its own",
                resolution="name the addresses of your proxies",
                field="public-trusted-proxy",
            )
        networks.append(network)
    return tuple(networks)


def read_node(text: str) -> Address | None:
    """Read an address as proxies write it, perhaps with a port; None for anything else (``unknown``, ``_hidden``)."""
    match = _NODE.fullmatch(text)
    if match is None:
        return None
    try:
        address = ipaddress.ip_address(next(group for group in match.groups() if group is not None))
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def read_pairs(element: str) -> dict[str, str] | None:
    """Read one element of a Forwarded header: names in lower case → values; None when it cannot be read."""
    pairs: dict[str, str] = {}
    for part in element.split(";"):
        match = _PAIR.fullmatch(part)
        if match is None or match[1].lower() in pairs:
            return None
        pairs[match[1].lower()] = match[2] if match[2] is not None else match[3]
    return pairs


def _from_the_right(scope: Scope, name: bytes) -> Iterator[str]:
    """Give the last elements of a list that may be spread over several fields, the last first.

    Quotes are not minded: no proxy writes a comma into an address, but a client may leave a quote open.
    """
    values = [value.decode("latin-1") for given, value in scope["headers"] if given == name]
    for text in reversed(",".join(values).rsplit(",", MOST_HOPS)[-MOST_HOPS:]):
        yield text.strip(" \t")
