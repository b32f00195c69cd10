"""Probes of the agent's channel: what the guest can put to its own agent, and what an impostor can put to the host."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

from hearth.attack.guest.report import outcome

CONTROL = 1024
ERROR, STDOUT, PROBE_FRAME, EXIT = 0x06, 0x02, 0x71, 0x05
HELD_AT_ONCE = 200
"""Connections: four times what the agent serves at once."""
CHUNK = b"x" * 65_536
TAKE_OVER_S = 20.0
SHOUTS: dict[str, list[bytes]] = {
    "an empty frame": [struct.pack(">I", 0)],
    "a frame of 4 GiB": [struct.pack(">IB", 0xFFFFFFFF, 0x11), CHUNK],
    "a frame one byte too long": [struct.pack(">IB", 1_048_577, 0x11), CHUNK],
    "an unknown type": [struct.pack(">IB", 1, 0xEE)],
    "a command without a token": [struct.pack(">IB", 3, 0x10), b"{}"],
    "a token of a megabyte": [struct.pack(">IB", 1_048_576, 0x11), b"a" * 1_048_575],
    "half a frame": [b"\0\0"],
    "noise": [bytes(range(256)) * 64],
}


def _frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">IB", 1 + len(payload), kind) + payload


LIES = {
    "huge": struct.pack(">IB", 0xFFFFFFFF, STDOUT) + CHUNK * 64,
    "empty": struct.pack(">I", 0) * 1000,
    "noise": bytes(range(255, -1, -1)) * 256,
    "half": _frame(STDOUT, b"x")[:3],
    "text": _frame(ERROR, b"invalid: \x1b]0;title\x07\x1b[2J\xff\xfe\0" + b"A" * 900_000),
    "exit": _frame(EXIT, b"\0"),
}
ENDLESS = {"endless": _frame(STDOUT, CHUNK), "probes": _frame(PROBE_FRAME, b"") * 4096}


def speak_to_agent(_run: str, probe: str, how: dict[str, Any]) -> None:
    """Call the guest's own agent and shout; any byte it says to us is more than it should."""
    said: dict[str, str] = {}
    for address in how["addresses"]:
        for title, pieces in SHOUTS.items():
            said[f"{title} at {address}"] = _shout(address, how["port"], pieces)
    spoke = [title for title, word in said.items() if word == "spoke"]
    unreachable = [title for title, word in said.items() if word not in ("spoke", "sent away")]
    if spoke:
        outcome(probe, "spoke", ", ".join(spoke))
    elif len(unreachable) == len(said):
        outcome(probe, "nobody there", said[unreachable[0]])
    else:
        outcome(probe, "sent away", f"{len(said) - len(unreachable)} of {len(said)} were taken and closed unheard")


def _shout(address: str, port: int, pieces: list[bytes]) -> str:
    try:
        with socket.create_connection((address, port), 4.0) as stream:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    stream.sendall(piece)
                stream.shutdown(socket.SHUT_WR)
            return "spoke" if _heard(stream) else "sent away"
    except OSError as error:
        return f"{type(error).__name__}"


def _heard(stream: socket.socket) -> bytes:
    try:
        return stream.recv(64)
    except ConnectionError:
        return b""


def crowd_agent(_run: str, probe: str, how: dict[str, Any]) -> None:
    """Hold as many connections to the own agent as it will let us, for a while, while the host goes on using it."""
    held: list[socket.socket] = []
    for _ in range(HELD_AT_ONCE):
        with contextlib.suppress(OSError):
            held.append(socket.create_connection((how["address"], how["port"]), 2.0))
    time.sleep(0.5)
    alive = 0
    for each in held:
        each.setblocking(False)
        try:
            alive += each.recv(1) != b""
        except BlockingIOError:
            alive += 1
        except OSError:
            pass
        each.close()
    word = "kept" if alive else "sent away" if held else "nobody there"
    outcome(probe, word, f"{len(held)} connected, {alive} were kept")


def become_agent(run: str, probe: str, how: dict[str, Any]) -> None:
    """End the agent and listen in its place, in the background: from now on the host talks to an impostor.

    The control port's ``how["word"]`` in what the host says chooses what it hears; see ``_lie``.
    """
    outcome(probe, "begun")
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    time.sleep(how.get("after_s", 1.0))
    deadline = time.monotonic() + TAKE_OVER_S
    listener = None
    while listener is None and time.monotonic() < deadline:
        for pid in _listeners(CONTROL):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            listener = _listen()
    if listener is not None:
        threading.Thread(target=_serve, args=(listener, run), daemon=True).start()
        time.sleep(how["seconds"])
    os._exit(0)


def _listen() -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("", CONTROL))
        listener.listen(64)
    except OSError:
        listener.close()
        raise
    return listener


def _listeners(port: int) -> set[int]:
    """Tell who listens on a port of this machine."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port:
            inodes.add(f"socket:[{fields[9]}]")
    found = set()
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and inodes:
            with contextlib.suppress(OSError):
                if any(str(each.readlink()) in inodes for each in (directory / "fd").iterdir()):
                    found.add(int(directory.name))
    return found


def _serve(listener: socket.socket, run: str) -> None:
    while True:
        stream, _ = listener.accept()
        threading.Thread(target=_answer, args=(stream, run), daemon=True).start()


def _answer(stream: socket.socket, run: str) -> None:
    with stream, contextlib.suppress(OSError):
        stream.settimeout(5.0)
        heard = b""
        while b"hearth-lie:" not in heard and len(heard) < 1 << 20:
            more = stream.recv(65_536)
            if not more:
                return
            heard += more
        lie = heard.split(b"hearth-lie:", 1)[1].split(b";", 1)[0].decode("ascii", "replace")
        _lie(stream, lie, run)


def _lie(stream: socket.socket, lie: str, run: str) -> None:
    """Say to the host what no agent would."""
    if lie == "who":
        stream.sendall(_frame(ERROR, f"invalid: impostor {run}".encode()))
    elif lie == "silence":
        time.sleep(60)
    elif lie in ENDLESS:
        while True:
            stream.sendall(ENDLESS[lie])
    else:
        stream.sendall(LIES[lie])
