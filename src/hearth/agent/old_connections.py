"""Ends the TCP connections a machine brought along from an earlier life: their other ends belong to somebody else now.

SOCK_DESTROY over netlink (sock_diag(7), net/ipv4/inet_diag.c of Linux), which needs CONFIG_INET_DIAG_DESTROY and the
modules inet_diag and tcp_diag. Processes see their connection fail with ECONNABORTED, whatever they wait for.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys

from hearth.wire.runtime_typing import NamedTuple

TIMEOUT_S = 10.0
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_SOCK_DESTROY = 21
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP = 0x1, 0x4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI48s")
_ANSWER = struct.Struct("=BBBB48s")
_STATES = 0xFFF << 1 & ~(1 << 6 | 1 << 7 | 1 << 10)
"""All states of net/tcp_states.h but TIME_WAIT, CLOSE and LISTEN: those that hold a peer."""
_RECEIVE_BYTES = 65_536
_MAPPED = bytes(10) + b"\xff\xff"


class _Found(NamedTuple):
    family: int
    identity: bytes
    """struct inet_diag_sockid: ports, addresses, interface and cookie."""


def end_old_connections(kept_ports: frozenset[int]) -> int:
    """End every TCP connection but those to loopback addresses and those of the agent's own ports; give the number.

    Raises:
        OSError: the kernel cannot do it, or did not.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as link:
        link.settimeout(TIMEOUT_S)
        link.bind((0, 0))
        ended = 0
        for family in (socket.AF_INET, socket.AF_INET6):
            for identity in _list(link, family):
                if _is_ours(family, identity, kept_ports):
                    continue
                ended += _destroy(link, _Found(family, identity))
        return ended


def _list(link: socket.socket, family: int) -> list[bytes]:
    try:
        messages = _ask(link, _SOCK_DIAG_BY_FAMILY, _NLM_F_DUMP, _Found(family, bytes(48)))
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise OSError(error.errno, "the kernel cannot list connections (inet_diag, tcp_diag)") from error
        raise
    return [_ANSWER.unpack_from(message)[4] for message in messages if message[0] == family]


def _destroy(link: socket.socket, found: _Found) -> bool:
    try:
        _ask(link, _SOCK_DESTROY, _NLM_F_ACK, found)
    except OSError as error:
        if error.errno == errno.ENOENT:  # it has ended by itself
            return False
        if error.errno == errno.EOPNOTSUPP:
            raise OSError(error.errno, "the kernel cannot end connections (CONFIG_INET_DIAG_DESTROY)") from error
        raise
    return True


def _ask(link: socket.socket, kind: int, flags: int, found: _Found) -> list[bytes]:
    """Send a request and give the bodies of its answers, up to the end of a dump or the acknowledgement.

    Raises:
        OSError: the kernel refused.
    """
    body = _REQUEST.pack(found.family, socket.IPPROTO_TCP, 0, 0, _STATES, found.identity)
    link.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | flags, 1, 0) + body)
    answers: list[bytes] = []
    while True:
        data = link.recv(_RECEIVE_BYTES)
        at = 0
        while at + _HEADER.size <= len(data):
            length, answer, *_ = _HEADER.unpack_from(data, at)
            if length < _HEADER.size:
                raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
            payload = data[at + _HEADER.size : at + length]
            at += length + 3 & ~3
            if answer == _NLMSG_DONE:
                return answers
            if answer == _NLMSG_ERROR:
                number = -int.from_bytes(payload[:4], sys.byteorder, signed=True)
                if number:
                    raise OSError(number, os.strerror(number))
                return answers
            answers.append(payload)


def _is_ours(family: int, identity: bytes, kept_ports: frozenset[int]) -> bool:
    local_port = int.from_bytes(identity[:2], "big")
    remote = identity[20:36]
    if family == socket.AF_INET:
        is_loopback = remote[0] == 127
    elif remote.startswith(_MAPPED):
        is_loopback = remote[12] == 127
    else:
        is_loopback = remote == bytes(15) + b"\x01"
    return is_loopback or local_port in kept_ports
