"""`hearth start`: --force boots from disk what cannot be woken with its memory."""

from __future__ import annotations

import argparse
from functools import partial

from hearth.cli.arguments import add_json, add_sandboxes
from hearth.cli.each import change_each
from hearth.sdk.client import Client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sandboxes(parser)
    parser.add_argument(
        "--force", action="store_true", help="boot from disk if need be; what was in memory is lost then"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        return change_each(arguments.sandbox, partial(client.start, force=arguments.force), json=arguments.json)
