"""`hearth destroy`: asks at a terminal, wants --yes elsewhere."""

from __future__ import annotations

import argparse
import sys

from hearth.cli.exits import FAILED, show_error
from hearth.errors import HearthError, InvalidInput
from hearth.sdk.client import Client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", nargs="+", help="id or name")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def run(arguments: argparse.Namespace) -> int:
    names = ", ".join(arguments.sandbox)
    if not arguments.yes and not _agreed(names):
        sys.stderr.write("hearth: nothing was destroyed\n")
        return FAILED
    status = 0
    with Client() as client:
        for name in arguments.sandbox:
            try:
                client.destroy(name)
            except HearthError as error:
                show_error(error)
                status = FAILED
            else:
                print(name)
    return status


def _agreed(names: str) -> bool:
    if not sys.stdin.isatty():
        raise InvalidInput(
            "destroying needs your word",
            details=f"{names} would be lost for good and there is no terminal to ask at",
            resolution="say --yes",
            field="--yes",
        )
    sys.stderr.write(f"Destroy {names} and all they hold? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
