"""Links, addresses, routes and neighbours by rtnetlink(7), and TAP devices: what the networks of machines need.

Messages are pure values with golden tests; ``RouteSocket`` carries them to the namespace of the thread that opened it.
Why not a library: docs/decisions/pyroute2.md.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from types import TracebackType
from typing import NamedTuple, Self

from hearth.errors import HostUnfit, InvalidInput

# linux/netlink.h
NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x01
NLM_F_ACK = 0x04
NLM_F_REPLACE = 0x100
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLA_F_NESTED = 0x8000
# linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/neighbour.h
RTM_NEWLINK = 16
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_GETADDR = 22
RTM_GETROUTE = 26
RTM_NEWNEIGH = 28
IFLA_ADDRESS = 1
IFLA_IFNAME = 3
IFLA_LINK = 5
IFLA_MASTER = 10
IFLA_IFALIAS = 20
IFLA_STATS64 = 23
RTA_OIF = 4
IFA_ADDRESS = 1
IFA_LOCAL = 2
NDA_DST = 1
NDA_LLADDR = 2
NUD_PERMANENT = 0x80
IFF_UP = 1
# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000
IFF_VNET_HDR = 0x4000

HEADER = struct.Struct("=IHHII")
ERROR = struct.Struct("=i")
LINK = struct.Struct("=BxHiII")
ADDRESS = struct.Struct("=BBBBi")
NEIGHBOUR = struct.Struct("=BxxxiHBB")
ROUTE = struct.Struct("=BBBBBBBBI")
LINK_COUNTERS = struct.Struct("=4Q")
"""How struct rtnl_link_stats64 begins: packets received and sent, bytes received and sent (linux/if_link.h)."""
INTERFACE_REQUEST = struct.Struct("16sH22x")
INTERFACE_NAME_MAX = 15
"""Bytes: IFNAMSIZ less the terminating zero."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One rtnetlink request, still without its header."""

    kind: int
    flags: int
    body: bytes

    def encode(self, sequence: int, *, acknowledge: bool = True) -> bytes:
        """Give the bytes to send; the kernel is asked to acknowledge, unless its answer is another one."""
        size = HEADER.size + len(self.body)
        flags = self.flags | NLM_F_REQUEST | (NLM_F_ACK if acknowledge else 0)
        return HEADER.pack(size, self.kind, flags, sequence, 0) + self.body


def bring_up(index: int, *, mac: str | None = None) -> Request:
    """Ask for a link to be set up, with the MAC address ``mac`` (``aa:bb:...``) where one is given."""
    attributes = b"" if mac is None else attribute(IFLA_ADDRESS, mac_bytes(mac))
    return Request(kind=RTM_NEWLINK, flags=0, body=LINK.pack(socket.AF_UNSPEC, 0, index, IFF_UP, IFF_UP) + attributes)


def add_address(index: int, interface: IPv4Interface) -> Request:
    """Ask for an address with its prefix on a link; the kernel adds the route to its network."""
    packed = interface.ip.packed
    head = ADDRESS.pack(socket.AF_INET, interface.network.prefixlen, 0, 0, index)
    body = head + attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    return Request(kind=RTM_NEWADDR, flags=NLM_F_CREATE | NLM_F_EXCL, body=body)


def add_neighbour(index: int, address: IPv4Address, mac: str) -> Request:
    """Ask for a permanent neighbour entry: packets to ``address`` leave at once, without a question by ARP."""
    head = NEIGHBOUR.pack(socket.AF_INET, index, NUD_PERMANENT, 0, 0)
    body = head + attribute(NDA_DST, address.packed) + attribute(NDA_LLADDR, mac_bytes(mac))
    return Request(kind=RTM_NEWNEIGH, flags=NLM_F_CREATE | NLM_F_REPLACE, body=body)


def interface_name(name: str) -> bytes:
    """Encode a link's name.

    Raises:
        InvalidInput: the kernel would cut it.
    """
    encoded = name.encode("ascii")
    if not 0 < len(encoded) <= INTERFACE_NAME_MAX:
        raise InvalidInput("invalid interface name", details=f"{name!r} has not 1 to {INTERFACE_NAME_MAX} bytes")
    return encoded + b"\0"


def nested(kind: int, value: bytes) -> bytes:
    """Encode an attribute that consists of attributes."""
    return attribute(kind | NLA_F_NESTED, value)


def attributes(*fields: tuple[int, bytes]) -> bytes:
    """Encode attributes one after the other."""
    return b"".join(attribute(kind, value) for kind, value in fields)


def parse_attributes(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Split a run of attributes into (kind without its flags, value)."""
    at = 0
    while at + 4 <= len(body):
        size, kind = struct.unpack_from("=HH", body, at)
        if size < 4:
            return
        yield kind & 0x3FFF, body[at + 4 : at + size]
        at += (size + 3) & ~3


def messages(answer: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Split what one ``recv`` gave into (kind, sequence, what follows the header)."""
    at = 0
    while at + HEADER.size <= len(answer):
        size, kind, _, sequence, _ = HEADER.unpack_from(answer, at)
        if size < HEADER.size:
            return
        yield kind, sequence, answer[at + HEADER.size : at + size]
        at += (size + 3) & ~3


class LinkTraffic(NamedTuple):
    """What a link has carried since it was made, as this end of it sees it."""

    received_packets: int
    sent_packets: int
    received_bytes: int
    sent_bytes: int


@dataclass(frozen=True, kw_only=True)
class FoundLink:
    """A link as the kernel lists it. ``master`` and ``peer``, the other end of a pair, are 0 without one."""

    index: int
    name: str
    alias: str
    master: int
    peer: int
    is_up: bool
    traffic: LinkTraffic


def attribute(kind: int, value: bytes) -> bytes:
    """Encode one attribute: length, kind, value, padded to four bytes (netlink(7))."""
    size = 4 + len(value)
    return struct.pack("=HH", size, kind) + value + bytes(-size % 4)


def mac_bytes(mac: str) -> bytes:
    """Give the six bytes of ``aa:bb:cc:dd:ee:ff``."""
    return bytes.fromhex(mac.replace(":", ""))


class NetlinkSocket:
    """A blocking netlink socket of one family, in the network namespace of the thread that makes it."""

    def __init__(self, family: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()


class RouteSocket(NetlinkSocket):
    """A blocking rtnetlink socket in the network namespace of the thread that makes it. The kernel answers at once."""

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)

    def link(self, name: str) -> FoundLink:
        """Describe a link of this socket's namespace, whatever the caller's is.

        Raises:
            OSError: ENODEV without such a link.
        """
        body = LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute(IFLA_IFNAME, interface_name(name))
        self._sequence += 1
        self._socket.send(Request(kind=RTM_GETLINK, flags=0, body=body).encode(self._sequence, acknowledge=False))
        for kind, _, payload in messages(self._socket.recv(65536)):
            if kind == NLMSG_ERROR:
                (status,) = ERROR.unpack_from(payload)
                raise OSError(-status, os.strerror(-status), f"link {name}")
            return _found(payload)
        raise AssertionError("an answer holds a message")

    def links(self) -> list[FoundLink]:
        """List the links of this socket's namespace."""
        return [_found(payload) for payload in self._dump(RTM_GETLINK, LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0))]

    def addresses(self) -> set[IPv4Interface]:
        """Tell the IPv4 addresses of this socket's namespace, each with its prefix."""
        found = set()
        for payload in self._dump(RTM_GETADDR, ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
            prefix = ADDRESS.unpack_from(payload)[1]
            fields = dict(parse_attributes(payload[ADDRESS.size :]))
            packed = fields.get(IFA_LOCAL) or fields.get(IFA_ADDRESS)
            if packed is not None:
                found.add(IPv4Interface((packed, prefix)))
        return found

    def default_links(self) -> set[int]:
        """Tell the numbers of the links that default routes of this socket's namespace go by."""
        head = ROUTE.pack(socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        found = set()
        for payload in self._dump(RTM_GETROUTE, head):
            fields = dict(parse_attributes(payload[ROUTE.size :]))
            if payload[1] == 0 and RTA_OIF in fields:
                found.add(int.from_bytes(fields[RTA_OIF], "little"))
        return found

    def _dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        self._sequence += 1
        self._socket.send(Request(kind=kind, flags=NLM_F_DUMP, body=body).encode(self._sequence, acknowledge=False))
        while True:
            for answer, _, payload in messages(self._socket.recv(1 << 18)):
                if answer == NLMSG_DONE:
                    return
                if answer == NLMSG_ERROR:
                    (status,) = ERROR.unpack_from(payload)
                    raise OSError(-status, os.strerror(-status), f"rtnetlink dump {kind}")
                yield payload

    def ask_all(self, *requests: Request) -> None:
        """Carry out several requests in turn, handed over in one call; those after a refused one are tried as well.

        Raises:
            OSError: the kernel refused one of them; the first refusal.
        """
        first = self._sequence + 1
        self._sequence += len(requests)
        self._socket.send(b"".join(request.encode(first + place) for place, request in enumerate(requests)))
        refused: OSError | None = None
        answered = 0
        while answered < len(requests):
            for kind, sequence, payload in messages(self._socket.recv(65536)):
                if kind != NLMSG_ERROR:
                    raise OSError(f"rtnetlink answered message {sequence} of kind {kind} to a request")
                answered += 1
                (status,) = ERROR.unpack_from(payload)
                if status and refused is None:
                    request = requests[sequence - first]
                    refused = OSError(-status, os.strerror(-status), f"rtnetlink request {request.kind}")
        if refused is not None:
            raise refused

    def ask(self, request: Request) -> None:
        """Send one request and wait for the kernel's word.

        Raises:
            OSError: the kernel refused; ``errno`` is its reason.
        """
        self._sequence += 1
        self._socket.send(request.encode(self._sequence))
        answer = self._socket.recv(65536)
        _, kind, _, sequence, _ = HEADER.unpack_from(answer)
        if kind != NLMSG_ERROR or sequence != self._sequence:
            raise OSError(f"rtnetlink answered message {sequence} of kind {kind} to request {self._sequence}")
        (status,) = ERROR.unpack_from(answer, HEADER.size)
        if status:
            raise OSError(-status, os.strerror(-status), f"rtnetlink request {request.kind}")


def _found(payload: bytes) -> FoundLink:
    _, _, index, flags, _ = LINK.unpack_from(payload)
    fields = dict(parse_attributes(payload[LINK.size :]))
    return FoundLink(
        index=index,
        name=fields.get(IFLA_IFNAME, b"").rstrip(b"\0").decode("ascii", "replace"),
        alias=fields.get(IFLA_IFALIAS, b"").rstrip(b"\0").decode("utf-8", "replace"),
        master=int.from_bytes(fields.get(IFLA_MASTER, b""), "little"),
        peer=int.from_bytes(fields.get(IFLA_LINK, b""), "little"),
        is_up=bool(flags & IFF_UP),
        traffic=_traffic(fields.get(IFLA_STATS64, b"")),
    )


def _traffic(counters: bytes) -> LinkTraffic:
    if len(counters) < LINK_COUNTERS.size:
        return LinkTraffic(0, 0, 0, 0)
    return LinkTraffic(*LINK_COUNTERS.unpack_from(counters))


def open_tap(name: str) -> int:
    """Make the TAP device ``name`` in this thread's namespace and give its descriptor, which the caller closes.

    It carries Ethernet frames, each behind a virtio-net header (IFF_VNET_HDR). It lives as long as its last descriptor
    and is never made persistent: its one user is the VMM, so it goes with the VMM, whatever happened to the daemon, and
    nothing needs sweeping. Closing the last descriptor takes the kernel some 25 ms.

    Raises:
        InvalidInput: the name is too long for an interface.
        HostUnfit: there is no TUN driver, or this process may not use it.
    """
    encoded = interface_name(name)
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise HostUnfit(
            "TAP devices are not to be had on this host",
            details=str(error),
            resolution="load the driver with 'modprobe tun' and run the daemon as root",
        ) from error
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, INTERFACE_REQUEST.pack(encoded, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
