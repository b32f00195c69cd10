"""Probes that any program could make: connections, datagrams, scans of ports, questions for names."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time
from typing import Any

from hearth.attack.guest.packets import mark
from hearth.attack.guest.report import outcome

WORDS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EHOSTUNREACH: "prohibited",
    errno.ENETUNREACH: "no route",
    errno.EACCES: "prohibited",
    errno.EADDRNOTAVAIL: "no address",
    errno.EINVAL: "no route",
    errno.ETIMEDOUT: "silence",
}
AT_ONCE = 64
"""Connections that a scan has under way."""
SCAN_PATIENCE_S = 15.0
CODES = {0: "answered", 1: "misunderstood", 2: "failed", 3: "unknown", 4: "refused", 5: "refused"}
"""Response codes (RFC 1035, 4.1.1)."""
RECURSE = 0x0100


def word_for(error: OSError) -> str:
    """Say in a word how a call ended."""
    if isinstance(error, TimeoutError):
        return "silence"
    return WORDS.get(error.errno or 0, f"error {errno.errorcode.get(error.errno or 0, '?')}")


def dial(run: str, probe: str, how: dict[str, Any]) -> None:
    """Connect by TCP or send a marked datagram, and tell what came of it."""
    address, port, patience_s = how["address"], how["port"], how.get("patience_s", 15.0)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if how.get("protocol", "tcp") == "tcp" else socket.SOCK_DGRAM
    try:
        with socket.socket(family, kind) as made:
            made.settimeout(patience_s)
            if "from" in how:
                made.bind((how["from"], 0))
            made.connect((address, port))
            if kind == socket.SOCK_DGRAM:
                made.send(mark(run, probe))
                made.recv(2048)
        outcome(probe, "open")
    except OSError as error:
        outcome(probe, word_for(error), str(error))


def scan(_run: str, probe: str, how: dict[str, Any]) -> None:
    """Tell which TCP ports of an address take connections, and how many answered at all."""
    left = list(range(how["first"], how["last"] + 1))
    opened: list[int] = []
    answered = 0
    poller = select.poll()
    under_way: dict[int, tuple[socket.socket, int]] = {}
    deadline = time.monotonic() + SCAN_PATIENCE_S
    while (left or under_way) and time.monotonic() < deadline:
        while left and len(under_way) < AT_ONCE:
            port = left.pop()
            made = socket.socket()
            made.setblocking(False)
            if made.connect_ex((how["address"], port)) not in (0, errno.EINPROGRESS):
                answered += 1
                made.close()
                continue
            under_way[made.fileno()] = (made, port)
            poller.register(made, select.POLLOUT)
        for descriptor, _ in poller.poll(500):
            made, port = under_way.pop(descriptor)
            poller.unregister(descriptor)
            if made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                opened.append(port)
            answered += 1
            made.close()
            deadline = time.monotonic() + SCAN_PATIENCE_S
    for made, _ in under_way.values():
        made.close()
    silent = len(left) + len(under_way)
    outcome(probe, "scanned", f"{answered} answered, {silent} did not", open=sorted(opened), silent=silent)


def question(name: str, kind: int) -> bytes:
    """Write a DNS question."""
    labels = b"".join(struct.pack("B", len(label)) + label for label in name.encode().split(b".") if label)
    return os.urandom(2) + struct.pack(">HHHHH", RECURSE, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


def asked(server: tuple[str, int], message: bytes, *, by_stream: bool, patience_s: float) -> bytes:
    """Send a question and give the answer to it.

    Raises:
        OSError: there was none.
    """
    if by_stream:
        with socket.create_connection(server, patience_s) as stream:
            stream.sendall(struct.pack(">H", len(message)) + message)
            with stream.makefile("rb") as file:
                return file.read(int.from_bytes(file.read(2), "big"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.settimeout(patience_s)
        datagrams.connect(server)
        datagrams.send(message)
        while True:
            answer = datagrams.recv(65_535)
            if answer[:2] == message[:2]:
                return answer


def ask(_run: str, probe: str, how: dict[str, Any]) -> None:
    """Ask a server for a name; ``answered`` only where the answer holds records."""
    message = question(how["name"], how.get("kind", 1))
    try:
        answer = asked(
            (how["server"], 53),
            message,
            by_stream=how.get("by_stream", False),
            patience_s=how.get("patience_s", 15.0),
        )
    except OSError as error:
        outcome(probe, word_for(error), str(error))
        return
    if len(answer) < 12:
        outcome(probe, "nonsense", answer.hex())
        return
    flags, _, answers = struct.unpack_from(">HHH", answer, 2)
    word = CODES.get(flags & 0xF, f"code {flags & 0xF}")
    outcome(probe, "empty" if word == "answered" and not answers else word, f"{answers} records")


def names(_run: str, probe: str, how: dict[str, Any]) -> None:
    """Pass a message out as a tunnel would: in long random names, one after the other."""
    said: dict[str, int] = {}
    for _ in range(how["times"]):
        name = ".".join([*(os.urandom(28).hex() for _ in range(3)), how["zone"]])
        word = "silence"
        with contextlib.suppress(OSError):
            server = (how["server"], 53)
            answer = asked(server, question(name, how["kind"]), by_stream=False, patience_s=10.0)
            word = CODES.get(answer[3] & 0xF, "?") if len(answer) >= 12 else "nonsense"
        said[word] = said.get(word, 0) + 1
        time.sleep(0.05)
    detail = ", ".join(f"{count} {word}" for word, count in sorted(said.items()))
    outcome(probe, next(iter(said)) if len(said) == 1 else "mixed", detail)
