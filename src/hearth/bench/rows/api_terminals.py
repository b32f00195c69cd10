"""``api.terminals``: two hundred terminals at once, in each of them somebody who types and reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from websockets.asyncio.client import ClientConnection, unix_connect

from hearth.bench.daemon import Daemon, data_directory, serving
from hearth.bench.row import Measurement, Row, at_most
from hearth.bench.samples import Effort, SampleFailed, Series

TERMINALS = 200
PER_SANDBOX = 20
"""As many as an agent has sessions."""
ROUND_BYTES = 4096
ROUNDS, QUICK_ROUNDS = 50, 10
SHELL = "stty raw -echo; printf ready; exec cat"
TIMEOUT_S = 300.0
OPTIONS = ("--quota", "sandboxes=none", "--log-level", "warning")


def measure_terminals(effort: Effort) -> Measurement:
    """Open terminals, give each its own random bytes all at once, and see that each gives back exactly those."""
    rounds = QUICK_ROUNDS if effort.quick else ROUNDS
    with _stage(1) as (daemon, names):
        asyncio.run(_converse(daemon, names, 1, rounds))
        alone = peak_mib(daemon.pid)
    with _stage(TERMINALS // PER_SANDBOX) as (daemon, names):
        took_s = asyncio.run(_converse(daemon, names, TERMINALS, rounds))
        crowded = peak_mib(daemon.pid)
    moved = TERMINALS * rounds * ROUND_BYTES / 1e6
    return Measurement(
        measured=Series(durations_s=(crowded,)),
        reference=Series(durations_s=(alone,)),
        in_mib=True,
        note=f"{TERMINALS} terminals gave back {moved:.0f} MB of input, byte by byte, at {moved / took_s:.1f} MB/s",
    )


async def _converse(daemon: Daemon, names: list[str], count: int, rounds: int) -> float:
    """Open so many terminals, use all at once, and give how long that took, in seconds."""
    token = daemon.data.admin_key.read_text().strip()
    async with contextlib.AsyncExitStack() as opened, asyncio.timeout(TIMEOUT_S):
        terminals = []
        for number in range(count):
            path = f"/api/v1/sandboxes/{names[number % len(names)]}/ws?new=true&cmd=sh&cmd=-c&cmd={SHELL}"
            making = unix_connect(
                str(daemon.data.api_socket),
                f"ws://localhost{path.replace(' ', '%20').replace(';', '%3B')}",
                additional_headers={"Authorization": f"Bearer {token}"},
                compression=None,
                ping_interval=None,
            )
            terminals.append(await opened.enter_async_context(making))
        for terminal in terminals:
            await _ready(terminal)
        started = time.perf_counter()
        await asyncio.gather(*(_echo(terminal, rounds) for terminal in terminals))
        return time.perf_counter() - started


async def _ready(terminal: ClientConnection) -> None:
    first = json.loads(await terminal.recv())
    if first["type"] != "session":
        raise SampleFailed(f"a terminal was not opened: {first}")
    seen = b""
    while seen != b"ready":
        seen += _bytes(await terminal.recv())


async def _echo(terminal: ClientConnection, rounds: int) -> None:
    """Type random bytes, and read them back."""
    for _ in range(rounds):
        typed, read = os.urandom(ROUND_BYTES), b""
        await terminal.send(typed)
        while len(read) < len(typed):
            read += _bytes(await terminal.recv())
        if read != typed:
            raise SampleFailed("a terminal gave back something else than was typed")


def _bytes(message: str | bytes) -> bytes:
    if isinstance(message, str):
        raise SampleFailed(f"a terminal ended: {message}")
    return message


def peak_mib(pid: int) -> float:
    """Give the most memory that was resident of a process since its start."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SampleFailed(f"the kernel does not tell what process {pid} took")


@contextlib.contextmanager
def _stage(sandboxes: int) -> Iterator[tuple[Daemon, list[str]]]:
    """Give a daemon of bare agents, and their sandboxes' names."""
    with data_directory() as data, serving(data, "local", *OPTIONS) as daemon, daemon.client() as client:
        yield daemon, [client.create(name=f"bench-{number}").name for number in range(sandboxes)]


ROWS = (
    Row(
        name="api.terminals",
        what=f"memory of the daemon, at most, with {TERMINALS} terminals in use",
        reference="with one",
        goals=at_most(mib=250),
        measure=measure_terminals,
    ),
)
