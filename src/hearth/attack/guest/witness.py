"""The other end: a sandbox that takes connections, and tells of every mark that reaches it, however it comes."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

from hearth.attack.guest.packets import marks_in
from hearth.attack.guest.report import say

EVERY_PROTOCOL = 3
GREETING = b"hearth-attack witness\n"
TOLD_OF_EACH = 3
"""Sightings that are told of each probe."""


def stand(run: str, probe: str, how: dict[str, Any]) -> None:
    """Take TCP connections and datagrams on a port, and watch the link, until the process is ended."""
    port = how["port"]
    streams = socket.create_server(("", port))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.bind(("", port))
    frames = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
    for work, made in ((_greet, streams), (_echo, datagrams)):
        threading.Thread(target=work, args=(made, how.get("redirect")), daemon=True).start()
    threading.Thread(target=_watch, args=(frames, run), daemon=True).start()
    say(ready=probe)
    time.sleep(how["seconds"])


def _greet(listener: socket.socket, redirect: str | None) -> None:
    """Greet whoever calls; who speaks HTTP is sent on to ``redirect``."""
    while True:
        caller, _ = listener.accept()
        with caller:
            try:
                caller.settimeout(1.0)
                first = caller.recv(4096) if redirect else b""
                if first.startswith(b"GET /moved"):
                    head = f"HTTP/1.1 302 Found\r\nLocation: {redirect}\r\nContent-Length: 0\r\n\r\n"
                    caller.sendall(head.encode())
                elif first.startswith(b"GET "):
                    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(GREETING)}\r\n\r\n"
                    caller.sendall(head.encode() + GREETING)
                else:
                    caller.sendall(GREETING)
            except OSError as error:
                say(note=f"a caller left: {error}")


def _echo(datagrams: socket.socket, _redirect: str | None) -> None:
    while True:
        data, peer = datagrams.recvfrom(65_535)
        datagrams.sendto(GREETING + data, peer)


def _watch(frames: socket.socket, run: str) -> None:
    counts: dict[str, int] = {}
    while True:
        data, sender = frames.recvfrom(65_535)
        if sender[2] == socket.PACKET_OUTGOING or sender[0] == "lo":
            continue
        for probe in marks_in(data, run):
            counts[probe] = counts.get(probe, 0) + 1
            if counts[probe] <= TOLD_OF_EACH:
                say(seen=probe)
