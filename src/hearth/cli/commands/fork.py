"""`hearth fork`."""

from __future__ import annotations

import argparse

from hearth.cli.arguments import add_copies, add_json
from hearth.cli.show import show_names
from hearth.sdk.client import Client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", help="id or name")
    add_copies(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        copies = client.fork(arguments.sandbox, arguments.count, name=arguments.name)
    show_names([copy.view for copy in copies], json=arguments.json)
    return 0
