"""Ports for servers that have to be told theirs."""

from __future__ import annotations

import contextlib
import random
import socket

FIRST, LAST = 20_000, 32_000
"""Below what Linux gives to whoever connects or binds to none (ip_local_port_range): one of those may be another's by
the time the server comes to listen."""
TRIES = 1_000

_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Give ports of 127.0.0.1 that nobody has at this moment and nobody is given unasked."""
    with contextlib.ExitStack() as held:
        return [_free_port(held) for _ in range(count)]


def free_port() -> int:
    """Give one, as ``free_ports``."""
    (port,) = free_ports(1)
    return port


def _free_port(held: contextlib.ExitStack) -> int:
    for _ in range(TRIES):
        port = random.SystemRandom().randint(FIRST, LAST)  # tests may seed the common generator, all workers alike
        with contextlib.suppress(OSError):
            if port not in _given:
                held.enter_context(socket.create_server(("127.0.0.1", port)))
                _given.add(port)
                return port
    raise AssertionError(f"no port from {FIRST} to {LAST} is free")
