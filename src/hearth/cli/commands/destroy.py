"""`hearth destroy`: asks at a terminal, wants --yes elsewhere."""

from __future__ import annotations

import argparse
import sys

from hearth.cli.arguments import add_json, add_sandboxes
from hearth.cli.consent import add_yes, agreed
from hearth.cli.each import to_each
from hearth.cli.exits import FAILED
from hearth.sdk.client import Client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sandboxes(parser)
    add_yes(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    names = ", ".join(arguments.sandbox)
    question = f"Destroy {names} and all they hold"
    if not agreed(arguments, question, deed="destroying", loss=f"{names} would be lost for good"):
        sys.stderr.write("hearth: nothing was destroyed\n")
        return FAILED
    with Client() as client:
        return to_each(arguments.sandbox, client.destroy, json=arguments.json)
