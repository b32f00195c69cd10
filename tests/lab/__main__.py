"""`python -m tests.lab COMMAND`: what the targets integration-* of the Makefile do."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab import sources, standing
from tests.lab.lab import running_lab
from tests.lab.provisioned import provisioned_directory
from tests.lab.site import LONG, URL, read_settings

from hearth.errors import HearthError
from hearth.server import logs

LONG_S = 3600.0
ACTIONS = {"up": standing.up, "keep": standing.keep, "clean": standing.clean}
OWN = Path(".env")


def main() -> int:
    """Do what is asked; a failure is a sentence and what to do, not a traceback."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("warm", help="make the image and the warm labs where they are missing")
    for name, text in (
        ("up", "start a lab that stays, or mend it"),
        ("keep", "hold it; what up starts"),
        ("logs", "show what all of it has said"),
        ("clean", "end it and remove its files"),
    ):
        commands.add_parser(name, help=text)
    told = "run the acceptance tests, in their long form, against it or against what TEST_* names"
    commands.add_parser("test", help=told).add_argument("words", nargs=argparse.REMAINDER)
    for name, text in (("run", "run a command as root in a fresh lab"), ("pytest", "run tests in a fresh lab")):
        commands.add_parser(name, help=text).add_argument("words", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    logs.configure("console", "warning")
    say = Told()
    try:
        if arguments.command == "warm":
            provisioned_directory(say, refresh=True)
            return 0
        if arguments.command in ACTIONS:
            ACTIONS[arguments.command](say)
            return 0
        if arguments.command == "logs":
            print(standing.logs())
            return 0
        if arguments.command == "test":
            return test(say, arguments.words)
        with running_lab(say) as lab:
            if arguments.command == "pytest":
                outcomes = lab.pytest(*arguments.words, timeout_s=LONG_S)
                return outcomes.status
            lab.sync()
            done = lab.tried(*arguments.words, timeout_s=LONG_S)
            print(done.stdout, end="")
            print(done.stderr, end="", file=sys.stderr)
            return done.exit_code
    except HearthError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def test(say: Callable[[str], None], chosen: list[str]) -> int:
    """Run the suite, or what is chosen of it, against what variables, ``.env`` or a lab that is up name.

    Without any of them a lab is started.
    """
    environment = {**read_settings(sources.ROOT / OWN), **os.environ}
    if not environment.get(URL):
        standing.up(say)
        environment |= read_settings(standing.ENVIRONMENT)
    words = [sys.executable, "-m", "pytest", "-v", *(chosen or ["tests/lab"])]
    return subprocess.run(words, cwd=sources.ROOT, env={**environment, LONG: "1"}, check=False).returncode


class Told:
    """Says what is done, with the seconds since the beginning; the same thing twice is said once."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._last = ""

    def __call__(self, line: str) -> None:
        if line and line != self._last:
            self._last = line
            print(f"\033[2m• {time.monotonic() - self._began_s:5.0f} s\033[0m {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
