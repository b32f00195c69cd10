"""`hearth setup`: shows each step as it goes."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

import msgspec

from hearth.api.reports import SetupEvent
from hearth.cli.daemon_tool import lines_of
from hearth.cli.exits import FAILED

ERASE = "\x1b[2K"
"""Clears the terminal's line (ECMA-48 EL 2)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for programs")
    parser.add_argument(
        "--check", action="store_true", help="make nothing, tell what is there; status 1 where some is missing"
    )
    client = parser.add_argument_group("of a client instead")
    client.add_argument("--client", metavar="URL", help="call the daemon there from now on, and keep its address")
    client.add_argument("--token-file", metavar="FILE", type=Path, help="the API key to keep; - is stdin")
    client.add_argument("--ca-file", metavar="FILE", type=Path, help="who signed the daemon's certificate, in PEM")


def run(arguments: argparse.Namespace) -> int:
    if arguments.client is not None:
        # The SDK takes 60 ms to load, which a server's set-up does without.
        status: int = import_module("hearth.cli.client_setup").set_up_client(arguments)
        return status
    failed = False
    for line in lines_of(["setup", "--json-lines", *(["--check"] if arguments.check else [])]):
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
