"""`hearth ports`: what listens in one sandbox, or in all that run."""

from __future__ import annotations

import argparse
import sys

from hearth.api.port_schemas import PortView
from hearth.cli.arguments import add_json
from hearth.cli.show import show_json, show_table
from hearth.sdk.client import Client

COLUMNS = ("sandbox", "port", "address", "process", "public url", "proxy url")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", nargs="?", help="id or name; it is woken (default: all that run, none is woken)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        if arguments.sandbox is not None:
            items, asleep = list(client.ports.of(arguments.sandbox)), list[str]()
        else:
            every = client.ports.every()
            items, asleep = every.items, every.asleep
    if arguments.json:
        show_json({"items": items, "asleep": asleep})
        return 0
    show_table(COLUMNS, [_row(each) for each in items])
    if asleep:
        sys.stderr.write(f"hearth: not asked, as that would wake them: {', '.join(asleep)}\n")
    return 0


def _row(port: PortView) -> tuple[str, ...]:
    return (port.sandbox, str(port.port), port.address, port.process or "", port.public_url or "", port.proxy_url)
