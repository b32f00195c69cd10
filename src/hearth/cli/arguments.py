"""Arguments that several commands share, and a parser whose errors name the next step."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from typing import NoReturn

from hearth.cli.exits import USAGE, show_misuse
from hearth.errors import InvalidInput

_DURATION = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)"
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
Actions = argparse._SubParsersAction  # argparse has no public name for what add_subparsers gives


class Parser(argparse.ArgumentParser):
    """argparse without abbreviations, with a status of its own for wrong usage."""

    def __init__(self, *, prog: str, description: str, usage_status: int = USAGE) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)
        self.usage_status = usage_status

    def error(self, message: str) -> NoReturn:
        """End with what is wrong and where to read on."""
        show_misuse(message, f"'{self.prog} --help' tells what it takes")
        self.exit(self.usage_status)


def add_json(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    """Declare ``--json``; ``again`` in an action whose command has it, too, so that either place will do."""
    default = argparse.SUPPRESS if again else False
    parser.add_argument("--json", action="store_true", default=default, help="print JSON for programs")


def add_actions(parser: argparse.ArgumentParser) -> Actions[Parser]:
    """Let a command have actions, such as ``list``; their ``action`` is None when none was named."""
    return parser.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser)


def add_sandboxes(parser: argparse.ArgumentParser) -> None:
    """Declare one or more sandboxes."""
    parser.add_argument("sandbox", nargs="+", help="id or name")


def add_copies(parser: argparse.ArgumentParser) -> None:
    """Declare how many copies are made and how they are named."""
    parser.add_argument("-n", "--count", type=int, default=1, metavar="N", help="how many (default: 1)")
    parser.add_argument("--name", help="a name of your own; of several it is what their names begin with")


def add_shape(parser: argparse.ArgumentParser) -> None:
    """Declare CPUs and memory of a machine."""
    parser.add_argument("--cpus", type=int, metavar="N", help="virtual CPUs (default: 1)")
    parser.add_argument("-m", "--memory-mb", type=int, metavar="MIB", help="memory in MiB (default: 256)")


def add_env(parser: argparse.ArgumentParser) -> None:
    """Declare ``-e KEY=VALUE`` and ``-e KEY``; see ``read_env``."""
    parser.add_argument(
        *("-e", "--env"),
        metavar="KEY[=VALUE]",
        action="append",
        default=[],
        help="set an environment variable, without =VALUE to what it is here; repeatable",
    )


def read_env(texts: Sequence[str]) -> dict[str, str]:
    """Read ``KEY=VALUE`` words; one without ``=`` takes the value from our own environment, out of sight of ``ps``.

    Raises:
        InvalidInput: a word has no key, or names a variable that is not set here.
    """
    return read_pairs([_with_own_value(text) for text in texts], what="--env")


def _with_own_value(text: str) -> str:
    if "=" in text or not text:
        return text
    value = os.environ.get(text)
    if value is None:
        raise InvalidInput(
            "invalid --env",
            details=f"{text[:20]!r} is not set here",  # not the whole word, as below
            resolution="export it first, or write it as --env KEY=VALUE",
            field="--env",
        )
    return f"{text}={value}"


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


def read_duration(text: str, *, what: str) -> float:
    """Read a time such as ``90``, ``90s``, ``1.5m``, ``2h`` or ``7d``, in seconds.

    Raises:
        InvalidInput: it is of another form.
    """
    match = re.fullmatch(_DURATION, text)
    if match is None:
        raise InvalidInput(
            f"invalid {what}",
            details=f"{text[:20]!r} is no length of time",
            resolution="write it as 90, 90s, 15m, 2h or 7d",
            field=what,
        )
    return float(match[1]) * _UNIT_S[match[2]]
