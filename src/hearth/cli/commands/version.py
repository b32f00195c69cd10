"""`hearth version`."""

from __future__ import annotations

import argparse

from hearth.cli.arguments import add_json
from hearth.cli.show import show_json
from hearth.version import VERSION


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.json:
        show_json({"version": VERSION})
    else:
        print(f"hearth {VERSION}")
    return 0
