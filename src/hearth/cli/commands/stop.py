"""`hearth stop`."""

from __future__ import annotations

import argparse

from hearth.cli.arguments import add_json
from hearth.cli.each import change_each
from hearth.cli.exits import USAGE, show_misuse
from hearth.sdk.client import Client

COLD = "cold"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", nargs="*", help="id or name")
    parser.add_argument("--all", action="store_true", help="all that are not on disk yet, as before a shutdown")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.all == bool(arguments.sandbox):
        show_misuse("say either which sandboxes, or --all", "'hearth stop --help' tells what it takes")
        return USAGE
    with Client() as client:
        names = [each.id for each in client.list() if each.view.heat != COLD] if arguments.all else arguments.sandbox
        return change_each(names, client.stop, json=arguments.json)
