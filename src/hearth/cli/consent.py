"""Asks before something is lost for good: at a terminal; elsewhere the command line must have said --yes."""

from __future__ import annotations

import argparse
import sys

from hearth.errors import InvalidInput


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Declare ``--yes``."""
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")


def agreed(arguments: argparse.Namespace, question: str, *, deed: str, loss: str) -> bool:
    """Tell whether to go on.

    Args:
        question: asked at a terminal, without its question mark.
        deed: the word for it, such as ``destroying``.
        loss: what is lost, such as ``web would be lost for good``.

    Raises:
        InvalidInput: ``--yes`` was not said and there is nobody to ask.
    """
    if arguments.yes:
        return True
    if not sys.stdin.isatty():
        raise InvalidInput(
            f"{deed} needs your word",
            details=f"{loss} and there is no terminal to ask at",
            resolution="say --yes",
            field="--yes",
        )
    sys.stderr.write(f"{question}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
