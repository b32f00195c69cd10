"""Probes that ask for too much, each within a bound of its own: flows, questions, words on the console."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Any

from hearth.attack.guest.calls import asked, question
from hearth.attack.guest.packets import mark
from hearth.attack.guest.report import outcome

PORTS = 60_000
FORGOTTEN_S = 25.0
"""A flow without an answer is remembered for 30 s (nf_conntrack_udp_timeout)."""
CONSOLE = "/dev/ttyS0"
LINE = b"hearth-attack fills the console\x1b[2J\x07 " * 8 + b"\n"


def flows(run: str, probe: str, how: dict[str, Any]) -> None:
    """Begin more flows than a machine may have: a datagram to each port of a neighbour, from a few ports."""
    sent = refused = 0
    payload = mark(run, probe)
    makers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
    began = time.monotonic()
    deadline = began + how["seconds"]
    for number in range(how["count"]):
        try:
            makers[number % len(makers)].sendto(payload, (how["address"], 1 + number // len(makers) % PORTS))
            sent += 1
        except OSError:
            refused += 1
        if time.monotonic() > deadline:
            break
    for each in makers:
        each.close()
    # Slower than this, the first flows would be forgotten before the last are begun.
    word = "flooded" if time.monotonic() - began < FORGOTTEN_S else "slow"
    outcome(probe, word, f"{sent} begun, {refused} refused by the own kernel", sent=sent)


def questions(_run: str, probe: str, how: dict[str, Any]) -> None:
    """Ask the resolver as fast as can be, and count what is answered in earnest."""
    message = question(how["name"], 1)
    counts = {"answered": 0, "refused": 0}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect((how["server"], 53))
        datagrams.setblocking(False)
        began = time.monotonic()
        for _ in range(how["count"]):
            with contextlib.suppress(OSError):
                datagrams.send(message)
            _count(datagrams, counts)
        took_s = time.monotonic() - began
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            _count(datagrams, counts)
            time.sleep(0.01)
    earnest, asked_in_all = counts["answered"], how["count"]
    fair = 300 + 100 * (took_s + 2.0)
    word = "unbounded" if earnest > fair else "slow" if earnest == asked_in_all else "bounded"
    outcome(probe, word, f"{asked_in_all} in {took_s:.1f} s: {earnest} answered, {counts['refused']} refused")


def _count(datagrams: socket.socket, counts: dict[str, int]) -> None:
    with contextlib.suppress(OSError):
        while True:
            answer = datagrams.recv(512)
            counts["refused" if answer[3] & 0xF == 5 else "answered"] += 1


def nonsense(_run: str, probe: str, how: dict[str, Any]) -> None:
    """Send the resolver what is no question, hold its streams open, and see whether it still answers."""
    server = (how["server"], 53)
    loop = b"\xbe\xef\x01\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1"
    junk = [b"", b"\0", b"\xff" * 600, loop, loop[:12] + b"\x3f" * 300, b"\0" * 12, os.urandom(1400)]
    held = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for message in junk:
            with contextlib.suppress(OSError):
                datagrams.sendto(message, server)
    for _ in range(20):
        with contextlib.suppress(OSError):
            stream = socket.create_connection(server, 2.0)
            held.append(stream)
            stream.sendall(b"\xff\xff" + b"x" * 100)
    word = "silent"
    for _ in range(5):
        with contextlib.suppress(OSError):
            answer = asked(server, question(how["name"], 1), by_stream=False, patience_s=4.0)
            word = "answered" if answer else word
            break
    for each in held:
        each.close()
    outcome(probe, word, f"{len(junk)} datagrams, {len(held)} streams held")


def console(_run: str, probe: str, how: dict[str, Any]) -> None:
    """Write to the serial console, which the host reads."""
    written = 0
    deadline = time.monotonic() + how["seconds"]
    try:
        descriptor = os.open(CONSOLE, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError as error:
        outcome(probe, "could not", str(error))
        return
    try:
        while written < how["bytes"] and time.monotonic() < deadline:
            try:
                written += os.write(descriptor, LINE * 16)
            except BlockingIOError:
                time.sleep(0.01)
    finally:
        os.close(descriptor)
    outcome(probe, "written", f"{written} bytes", sent=written)
