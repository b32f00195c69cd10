"""`hearth setup`: shows each step as it goes."""

from __future__ import annotations

import argparse
import sys

import msgspec

from hearth.api.reports import SetupEvent
from hearth.cli.daemon_tool import lines_of
from hearth.cli.exits import FAILED

ERASE = "\x1b[2K"
"""Clears the terminal's line (ECMA-48 EL 2)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for programs")


def run(arguments: argparse.Namespace) -> int:
    failed = False
    for line in lines_of(["setup", "--json-lines"]):
        event = msgspec.json.decode(line, type=SetupEvent)
        failed = failed or event.state == "failed"
        if arguments.json:
            sys.stdout.write(line.decode())
            sys.stdout.flush()
        elif text := line_for(event, live=sys.stderr.isatty()):
            sys.stderr.write(text)
            sys.stderr.flush()
    return FAILED if failed else 0


def line_for(event: SetupEvent, *, live: bool) -> str:
    """Give what people see of an event; progress only where it can be overwritten."""
    if event.state == "started":
        return f"{event.step} …\r" if live else ""
    if event.state == "progress":
        percent = f" {event.percent:3.0f} %" if event.percent is not None else ""
        return f"{ERASE}{event.step}{percent} {event.message[:60]}\r" if live else ""
    took = f" ({event.duration_s:.1f} s)" if event.duration_s is not None else ""
    message = f": {event.message}" if event.message else ""
    resolution = f"\n  {event.resolution}" if event.resolution else ""
    return f"{ERASE if live else ''}{event.step}: {event.state}{took}{message}{resolution}\n"
