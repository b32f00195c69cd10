"""Carries nf_tables' commands to the kernel, and asks what it has; what they are made of: ``nft``."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence

from hearth.errors import HostUnfit
from hearth.host.netlink import (
    ERROR,
    HEADER,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    NetlinkSocket,
    attribute,
    attributes,
    messages,
    parse_attributes,
)
from hearth.host.nft import COMMENT, GENERIC, NETLINK_NETFILTER, NFPROTO_INET, SUBSYSTEM, Command, Message, frame, text

BATCH_BEGIN = 0x10
BATCH_END = 0x11
SO_SNDBUFFORCE = 32
LISTINGS_MAX = 20
LISTING_PAUSE_S = 0.002
"""Between two listings, for the kernel to go on growing the set."""


class NftSocket(NetlinkSocket):
    """A blocking nf_tables socket in the network namespace of the thread that makes it. The kernel answers at once."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def commit(self, commands: Sequence[Command]) -> None:
        """Carry out all commands or none.

        Raises:
            HostUnfit: the kernel lacks a part that a command needs.
            OSError: the kernel refused one; ``errno`` is its reason, the text names the command.
        """
        if not commands:
            return
        first = self._sequence + 1
        last = first + len(commands)
        self._sequence = last + 1
        parts = [frame(BATCH_BEGIN, NLM_F_REQUEST, first, 0, SUBSYSTEM, b"")]
        for place, command in enumerate(commands, first + 1):
            parts.append(command.encode(place, NLM_F_ACK if place == last else 0))
        parts.append(frame(BATCH_END, NLM_F_REQUEST, self._sequence, 0, SUBSYSTEM, b""))
        batch = b"".join(parts)
        if len(batch) > 100_000:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 2 * len(batch))
        self._socket.send(batch)
        failed = self._first_failure(first, last)
        if failed is not None:
            place, code = failed
            what = "batch" if place <= first else commands[min(place, last) - first - 1].name
            raise _refusal(code, what)

    def comment(self, table_name: str, *, family: int = NFPROTO_INET) -> str | None:
        """Tell a table's comment: "" without one, None when there is no such table."""
        self._sequence += 1
        command = Command(kind=Message.GETTABLE, body=attribute(1, text(table_name)), name="get", family=family)
        self._socket.send(command.encode(self._sequence))
        answer = self._socket.recv(65536)
        size, kind, _, _, _ = HEADER.unpack_from(answer)
        if kind == NLMSG_ERROR:
            (status,) = ERROR.unpack_from(answer, HEADER.size)
            if status == -2:  # ENOENT
                return None
            raise _refusal(-status, f"table {table_name}")
        for key, value in parse_attributes(answer[HEADER.size + GENERIC.size : size]):
            if key == 6 and len(value) >= 2 and value[0] == COMMENT:
                return value[2 : 2 + value[1]].rstrip(b"\0").decode("ascii", "replace")
        return ""

    def keys(self, table_name: str, set_name: str) -> set[bytes]:
        """Tell the keys a set holds now.

        While the kernel grows a set that has got many, a listing misses some without a word (rhashtable_walk_start(9)
        in nft_rhash_walk): it is asked again until two answers agree.
        """
        before = self._list_keys(table_name, set_name)
        for _ in range(LISTINGS_MAX):
            time.sleep(LISTING_PAUSE_S)
            now = self._list_keys(table_name, set_name)
            if now == before:
                break
            before = now
        return before

    def _list_keys(self, table_name: str, set_name: str) -> set[bytes]:
        self._sequence += 1
        body = attributes((1, text(table_name)), (2, text(set_name)))
        command = Command(kind=Message.GETSETELEM, body=body, name="dump")
        self._socket.send(command.encode(self._sequence, NLM_F_DUMP))
        found: set[bytes] = set()
        while True:
            answer = self._socket.recv(1 << 18)
            for kind, _, payload in messages(answer):
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    (status,) = ERROR.unpack_from(payload)
                    raise _refusal(-status, f"set {set_name}")
                found |= _keys(payload[GENERIC.size :])

    def _first_failure(self, begin: int, last: int) -> tuple[int, int] | None:
        """Read until the word about the last command, or about the batch itself, is there."""
        failed: tuple[int, int] | None = None
        while True:
            ended = False
            for kind, sequence, payload in messages(self._socket.recv(1 << 18)):
                if kind == NLMSG_ERROR:
                    (status,) = ERROR.unpack_from(payload)
                    if status and failed is None:
                        failed = (sequence, -status)
                    ended = ended or sequence in (begin, last)
            if ended:
                return failed


def _keys(body: bytes) -> set[bytes]:
    found = set()
    for kind, value in parse_attributes(body):
        if kind == 3:
            for _, element in parse_attributes(value):
                fields = dict(parse_attributes(element))
                key = dict(parse_attributes(fields.get(1, b""))).get(1)
                if key is not None and 3 not in fields:
                    found.add(key)
    return found


def _refusal(code: int, what: str) -> OSError | HostUnfit:
    if code in (93, 95):  # EPROTONOSUPPORT, EOPNOTSUPP
        return HostUnfit(
            "this kernel's firewall lacks a part that isolation needs",
            details=f"{what}: {os.strerror(code)}",
            resolution="use a kernel with nf_tables (Linux 5.10 or later), its NAT, reject, log and limit",
        )
    return OSError(code, os.strerror(code), f"nf_tables {what}")
