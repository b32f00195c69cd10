"""Arguments that several commands share, and a parser whose errors name the next step."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from hearth.errors import InvalidInput


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, with a status of its own for wrong usage."""

    def __init__(self, *, prog: str, description: str, usage_status: int) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        self.usage_status = usage_status

    def error(self, message: str) -> NoReturn:
        """End with what is wrong and where to read on."""
        self.exit(self.usage_status, f"hearth: {message}\n  '{self.prog} --help' tells what it takes\n")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def add_env(parser: argparse.ArgumentParser) -> None:
    """Declare ``-e KEY=VALUE``."""
    parser.add_argument(
        "-e", "--env", metavar="KEY=VALUE", action="append", default=[], help="set an environment variable; repeatable"
    )


def read_pairs(texts: Sequence[str], *, what: str) -> dict[str, str]:
    """Read ``KEY=VALUE`` words; the last of a key counts.

    Raises:
        InvalidInput: a word has no key or no ``=``.
    """
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            # Not the whole word: it may be a secret whose name was forgotten.
            raise InvalidInput(
                f"invalid {what}",
                details=f"{key[:20]!r} is not of the form KEY=VALUE",
                resolution=f"write it as {what} KEY=VALUE",
                field=what,
            )
        pairs[key] = value
    return pairs
