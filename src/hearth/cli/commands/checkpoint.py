"""`hearth checkpoint`."""

from __future__ import annotations

import argparse

from hearth.cli.arguments import add_json
from hearth.cli.show import show_json
from hearth.sdk.client import Client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", help="id or name")
    parser.add_argument("name", help="what to call the checkpoint")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        snapshot = client.checkpoint(arguments.sandbox, arguments.name)
    if arguments.json:
        show_json(snapshot)
    else:
        print(snapshot.name)
    return 0
