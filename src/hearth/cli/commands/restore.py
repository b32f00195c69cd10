"""`hearth restore`."""

from __future__ import annotations

import argparse

from hearth.cli.arguments import add_copies, add_json
from hearth.cli.show import show_names
from hearth.sdk.client import Client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("snapshot", help="id or name of a checkpoint; 'hearth snapshots' lists them")
    add_copies(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        made = client.resume_snapshot(arguments.snapshot, arguments.count, name=arguments.name)
    show_names([sandbox.view for sandbox in made], json=arguments.json)
    return 0
