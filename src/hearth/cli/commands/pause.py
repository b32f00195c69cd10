"""`hearth pause`."""

from __future__ import annotations

import argparse

from hearth.cli.arguments import add_json, add_sandboxes
from hearth.cli.each import change_each
from hearth.sdk.client import Client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sandboxes(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        return change_each(arguments.sandbox, client.pause, json=arguments.json)
