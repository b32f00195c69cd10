"""Where registries may be: anywhere public, and where the operator says. A user's word brings nobody into this network.

A name is looked up once and what was looked at is what is connected to: it cannot mean something else a moment later.
"""

# ruff: noqa: ARG002 -- the signatures are httpcore's

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpcore

from hearth.errors import Forbidden, InvalidInput

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Addresses that stand for IPv4 addresses (RFC 6052)."""
HTTPS_PORT = 443
LOCAL_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
"""The same, for a network's own use (RFC 8215)."""
LOOKUP_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Registries:
    """What an operator allows besides public registries over HTTPS.

    Args:
        hosts: ``HOST`` or ``HOST:PORT`` whose addresses may be private.
        networks: private addresses that may be connected to.
        plain: ``HOST`` or ``HOST:PORT`` that are spoken to without TLS when somebody asks for it; they may be private.
        only: where there are any, images come from these ``HOST`` or ``HOST:PORT`` alone.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    plain: frozenset[str] = frozenset()
    only: frozenset[str] = frozenset()

    def may_reach(self, host: str, port: int, address: Address) -> bool:
        """Tell whether a connection for ``host`` may go to an address."""
        if _names(host, port) & (self.hosts | self.plain):
            return True
        return is_public(address) or any(address in network for network in self.networks)

    def may_pull(self, host: str, port: int) -> bool:
        """Tell whether images may come from a registry."""
        return not self.only or bool(_names(host, port) & self.only)

    def is_plain(self, host: str, port: int) -> bool:
        """Tell whether a host may be spoken to without TLS."""
        return bool(_names(host, port) & self.plain)


def read_registries(allowed: Iterable[str], plain: Iterable[str], only: Iterable[str] = ()) -> Registries:
    """Read what an operator allows: hosts with or without a port, addresses, networks such as ``10.0.0.0/8``.

    Raises:
        InvalidInput: one is none of these.
    """
    hosts, networks = set(), list[Network]()
    for text in allowed:
        if "/" in text:
            try:
                networks.append(ipaddress.ip_network(text))
            except ValueError as error:
                raise _invalid(text, "registry-allow") from error
        else:
            hosts.add(_host(text, "registry-allow"))
    return Registries(
        hosts=frozenset(hosts),
        networks=tuple(networks),
        plain=frozenset(_host(text, "registry-insecure") for text in plain),
        only=frozenset(_host(text, "registry-only") for text in only),
    )


def is_public(address: Address) -> bool:
    """Tell whether an address is one of the whole Internet's, also one that stands for another."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in NAT64:
            return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.sixtofour is not None or address.teredo is not None:
            return False
        if address.is_site_local or address in LOCAL_NAT64:
            return False
    return address.is_global and not address.is_multicast and not address.is_reserved


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Connects where a registry may be, and nowhere else."""

    def __init__(self, registries: Registries) -> None:
        self._registries = registries
        self._backend = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers, all of which may be reached.

        Raises:
            Forbidden: one of them may not: then none is.
        """
        addresses = await _look_up(host, port)
        for address in addresses:
            if not self._registries.may_reach(host, port, address):
                raise Forbidden(
                    "this registry may not be reached",
                    details=f"{host} port {port} is at an address that is not public",
                    resolution=f"ask the operator for 'hearth serve --registry-allow {host}:{port}'",
                    field="reference",
                )
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._backend.connect_tcp(str(address), port, timeout=timeout)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


async def _look_up(host: str, port: int) -> list[Address]:
    try:
        return [ipaddress.ip_address(host.strip("[]"))]
    except ValueError:
        pass
    try:
        async with asyncio.timeout(LOOKUP_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError) as error:
        raise httpcore.ConnectError(f"{host} is not known: {error}") from error
    return list(dict.fromkeys(ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found))


def _names(host: str, port: int) -> frozenset[str]:
    host = host.lower()
    return frozenset({host, f"{host}:{port}"})


def _host(text: str, option: str) -> str:
    name, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not text or (colon and not (port.isascii() and port.isdigit() and name)) or set(text) & set("/@?# "):
        raise _invalid(text, option)
    return text.lower()


def _invalid(text: str, option: str) -> InvalidInput:
    return InvalidInput(
        f"invalid {option}",
        details=f"{text!r} is neither a host nor a network",
        resolution="use HOST, HOST:PORT or, to allow addresses, a network such as 10.0.0.0/8",
        field=option,
    )
