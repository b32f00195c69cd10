"""Where an image URL may lead to: hosts that an operator listed, and never inwards on a caller's word."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from hearth.image.golden.base import URL_FIELD, SourceRefused
from hearth.image.golden.settings import SourcePolicy

Address = IPv4Address | IPv6Address

DEFAULT_PORTS = frozenset({80, 443})
METADATA = frozenset(
    ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16")
)
"""Where clouds tell their machines secrets: documented by AWS, Google, Azure, Alibaba and Oracle."""
NAT64 = ip_network("64:ff9b::/96")
PUBLIC_V6 = ip_network("2000::/3")
"""All that is assigned for use between networks; the rest holds local translations, too (RFC 8215, RFC 7915)."""


def check_host(policy: SourcePolicy, host: str, port: int) -> None:
    """Let pass what the operator listed.

    Raises:
        SourceRefused: it is not listed.
    """
    host = host.lower().rstrip(".")
    for listed in policy.http_hosts:
        pattern, _, listed_port = listed.lower().rpartition(":") if _has_port(listed) else (listed.lower(), "", "")
        if port not in ({int(listed_port)} if listed_port else DEFAULT_PORTS):
            continue
        if host == pattern.strip("[]") or (pattern.startswith("*.") and host.endswith(pattern[1:])):
            return
    raise SourceRefused(
        "images are not fetched from there",
        details=f"the operator does not list {host[:100]}:{port}",
        resolution="use a listed host, or have this one listed",
        field=URL_FIELD,
    )


def check_address(policy: SourcePolicy, address: Address) -> None:
    """Let pass an address that may be connected to.

    Raises:
        SourceRefused: it is this host's, a private network's, a metadata service's, or no single host's.
    """
    inner = _embedded(address)
    if inner != address:
        check_address(policy, inner)
        return
    forbidden = address.is_link_local or address.is_multicast or address.is_unspecified or address in METADATA
    listed = any(address in network for network in policy.private_networks if network.version == address.version)
    is_public = address.is_global and (address.version == 4 or address in PUBLIC_V6)
    if forbidden or not (is_public or listed):
        raise SourceRefused(
            "images are not fetched from there",
            details=f"{address} is not an address of the public Internet",
            resolution="an operator can list a private network, but no link-local one",
            field=URL_FIELD,
        )


def _embedded(address: Address) -> Address:
    """Give the IPv4 address that an IPv6 one stands for, however it is wrapped; others as they are."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    nat64_or_compatible = (NAT64, IPv6Network("::/96"))
    if any(address in network for network in nat64_or_compatible) and int(address) > 1:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def _has_port(listed: str) -> bool:
    return listed.rpartition(":")[2].isdigit() and (listed.count(":") == 1 or "]:" in listed)
