"""Forgetting tracked connections by netlink, so that whoever gets an address next gets nothing of its last holder's."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv4Address

from hearth.host.netlink import ERROR, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, NetlinkSocket, attributes, messages
from hearth.host.nft import NETLINK_NETFILTER, frame

SUBSYSTEM = 1
"""NFNL_SUBSYS_CTNETLINK"""
DELETE = 2
CTA_MARK = 8
CTA_MARK_MASK = 21


class ConntrackSocket(NetlinkSocket):
    """A blocking socket to connection tracking in the network namespace of the thread that makes it."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def forget(self, address: IPv4Address) -> None:
        """Drop all connections whose mark is this address (``nft_expressions.mark_by_source``).

        Raises:
            OSError: the kernel refused.
        """
        self._socket.send(forget_message(address))
        for kind, _, payload in messages(self._socket.recv(65536)):
            if kind == NLMSG_ERROR:
                (status,) = ERROR.unpack_from(payload)
                if status:
                    raise OSError(-status, os.strerror(-status), f"connections of {address}")


def forget_message(address: IPv4Address) -> bytes:
    """Give the request: all connections with this mark (linux/netfilter/nfnetlink_conntrack.h)."""
    (mark,) = struct.unpack("=I", address.packed)
    body = attributes((CTA_MARK, struct.pack(">I", mark)), (CTA_MARK_MASK, b"\xff" * 4))
    return frame(SUBSYSTEM << 8 | DELETE, NLM_F_REQUEST | NLM_F_ACK, 1, socket.AF_INET, 0, body)
