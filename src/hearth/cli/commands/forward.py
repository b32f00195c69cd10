"""`hearth forward`: local ports whose connections come out at ports of a sandbox, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import signal
from dataclasses import dataclass

import msgspec

from hearth.cli.exits import show_error
from hearth.errors import InvalidInput
from hearth.sdk import calls
from hearth.sdk.async_client import AsyncClient
from hearth.sdk.port_calls import MAX_PORT

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """A local port, 0 for any, and the sandbox's port that it leads to."""

    local: int
    remote: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", help="id or name; the first connection wakes it")
    parser.add_argument(
        "ports", nargs="+", metavar="LOCAL:REMOTE", help="or one number for both; LOCAL 0: any free one"
    )
    parser.add_argument(
        "--bind", metavar="ADDR", default=LOOPBACK, help="address to listen on (default: 127.0.0.1, this host alone)"
    )
    parser.add_argument("--json", action="store_true", help="write JSON, one object a line")


def run(arguments: argparse.Namespace) -> int:
    mappings = [read_mapping(text) for text in arguments.ports]
    return asyncio.run(_forward(arguments.sandbox, mappings, arguments.bind, json=arguments.json))


def read_mapping(text: str) -> Mapping:
    """Read ``8080:3000`` or ``3000``.

    Raises:
        InvalidInput: it is of another form, or a port cannot be.
    """
    match = re.fullmatch(r"(?:([0-9]{1,5}):)?([0-9]{1,5})", text)
    local, remote = (int(match[1] or match[2]), int(match[2])) if match else (0, 0)
    if not (local <= MAX_PORT and 1 <= remote <= MAX_PORT):
        raise InvalidInput(
            "invalid ports",
            details=f"{text[:40]!r} is not LOCAL:REMOTE",
            resolution=f"write it as 8080:3000, with ports up to {MAX_PORT}",
            field="LOCAL:REMOTE",
        )
    return Mapping(local=local, remote=remote)


async def _forward(sandbox: str, mappings: list[Mapping], bind: str, *, json: bool) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with AsyncClient() as client, contextlib.AsyncExitStack() as listening:
        view = await client.call(calls.get(sandbox))  # a wrong name is told now, not to the first connection
        for each in mappings:
            forwarding = client.ports.forward(view.id, each.remote, local=each.local, host=bind, on_refusal=show_error)
            host, port = await listening.enter_async_context(forwarding)
            shown = f"[{host}]" if ":" in host else host
            if json:
                line = {"host": host, "port": port, "sandbox": view.name, "remote": each.remote}
                print(msgspec.json.encode(line).decode(), flush=True)
            else:
                print(f"{shown}:{port} -> {view.name}:{each.remote}", flush=True)
        await stopped.wait()
    return 0
