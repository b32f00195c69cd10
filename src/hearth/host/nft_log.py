"""Packets that rules with ``log group`` tell of (linux/netfilter/nfnetlink_log.h): which rule, from whom, to whom.

The kernel keeps log groups per namespace, so whoever listens inside a machine's namespace hears of that machine alone.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from hearth.host.netlink import ERROR, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, attributes, messages, parse_attributes
from hearth.host.nft import GENERIC, NETLINK_NETFILTER, frame

SUBSYSTEM = 4
"""NFNL_SUBSYS_ULOG"""
PACKET = 0
CONFIG = 1
BIND = 1
COPY_PACKET = 2
PAYLOAD = 9
PREFIX = 10
COPIED_BYTES = 64
"""An IPv4 header with all its options would be 60; the ports come after 20 in practice."""
RECEIVE_BUFFER_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True)
class LoggedPacket:
    """What a rule told. Ports are 0 where the protocol has none."""

    group: int
    prefix: str
    source: IPv4Address
    destination: IPv4Address
    protocol: int
    source_port: int
    destination_port: int


class LogSocket:
    """A non-blocking socket that hears log groups of the network namespace of the thread that makes it.

    Args:
        groups: numbers as the rules have them; each can have one listener in a namespace.

    Raises:
        OSError: another listens already (EBUSY), or the kernel has no such log.
    """

    def __init__(self, *groups: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            for group in groups:
                self._configure(group, attributes((1, bytes([BIND]))))
                self._configure(group, attributes((2, struct.pack(">IBB", COPIED_BYTES, COPY_PACKET, 0))))
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def read(self) -> list[LoggedPacket]:
        """Give what has been told since; nothing is fine. What did not fit into the buffer is lost."""
        found: list[LoggedPacket] = []
        while True:
            try:
                answer = self._socket.recv(1 << 16)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno == errno.ENOBUFS:  # told once, when something was lost
                    continue
                raise
            for kind, _, payload in messages(answer):
                if kind == SUBSYSTEM << 8 | PACKET:
                    packet = parse_packet(payload)
                    if packet is not None:
                        found.append(packet)

    def _configure(self, group: int, body: bytes) -> None:
        flags = NLM_F_REQUEST | NLM_F_ACK
        self._socket.send(frame(SUBSYSTEM << 8 | CONFIG, flags, 1, socket.AF_UNSPEC, group, body))
        for kind, _, payload in messages(self._socket.recv(65536)):
            if kind == NLMSG_ERROR:
                (status,) = ERROR.unpack_from(payload)
                if status:
                    raise OSError(-status, os.strerror(-status), f"log group {group}")


def parse_packet(payload: bytes) -> LoggedPacket | None:
    """Read one message after its netlink header; None for what is no IPv4 packet. The bytes may be a guest's."""
    if len(payload) < GENERIC.size:
        return None
    _, _, group = GENERIC.unpack_from(payload)
    fields = dict(parse_attributes(payload[GENERIC.size :]))
    packet = fields.get(PAYLOAD, b"")
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    header_bytes = (packet[0] & 0x0F) * 4
    protocol = packet[9]
    fragment = struct.unpack_from(">H", packet, 6)[0] & 0x1FFF
    ports = (0, 0)
    if protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP) and not fragment and len(packet) >= header_bytes + 4:
        ports = struct.unpack_from(">HH", packet, header_bytes)
    return LoggedPacket(
        group=group,
        prefix=fields.get(PREFIX, b"").rstrip(b"\0").decode("ascii", "replace"),
        source=IPv4Address(packet[12:16]),
        destination=IPv4Address(packet[16:20]),
        protocol=protocol,
        source_port=ports[0],
        destination_port=ports[1],
    )
