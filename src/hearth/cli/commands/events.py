"""`hearth events`: what happened, and with --follow what happens, one line each; --json writes one object a line."""

from __future__ import annotations

import argparse
import sys

import msgspec

from hearth.api.event_schemas import EventView
from hearth.sdk.client import Client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", nargs="?", help="of this sandbox alone, by id or name")
    parser.add_argument("--follow", "-f", action="store_true", help="go on with what happens from now on")
    parser.add_argument(
        "--type",
        metavar="TYPE",
        action="append",
        default=[],
        help="only these: sandbox.running, or sandbox for all of a sandbox's; repeatable",
    )
    parser.add_argument("--after", metavar="ID", help="only what came after this event (default: all that is kept)")
    parser.add_argument("--json", action="store_true", help="write JSON, one object a line")


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        for event in client.events.follow(
            types=arguments.type,
            sandbox=arguments.sandbox,
            after=arguments.after or "oldest",
            follow=arguments.follow,
        ):
            line = msgspec.json.encode(event).decode() if arguments.json else line_of(event)
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    return 0


def line_of(event: EventView) -> str:
    """Give an event as one line for people; what names hold of control characters is escaped."""
    if event.type == "gap":
        return "events were lost here"
    told = " ".join(f"{name}={_plain(value)}" for name, value in event.data.items())
    return "  ".join(
        filter(None, [event.at.astimezone().strftime("%H:%M:%S"), event.type, _plain(event.name), event.subject, told])
    )


def _plain(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if text.isprintable() else ascii(text)[1:-1]
