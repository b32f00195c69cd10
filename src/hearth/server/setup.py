"""`setup`: makes this host ready and prints each step as one JSON object a line, for the CLI to show."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

import msgspec

from hearth.api.reports import SetupEvent
from hearth.config import load_data_directory
from hearth.control.setup import set_up
from hearth.errors import HearthError
from hearth.image.progress import Progress
from hearth.server.logs import configure

EVENTS_PER_S = 10
"""More than a person can read; a download reports every chunk."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `setup` takes."""
    parser.add_argument("--json-lines", action="store_true", help="print events as JSON, one a line (the only form)")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="warning")


def run(arguments: argparse.Namespace) -> int:
    """Set this host up; 1 when a step failed, which the last event tells."""
    configure("console", arguments.log_level)
    printer = EventPrinter()
    try:
        asyncio.run(set_up(load_data_directory(), printer.progress))
    except HearthError as error:
        printer.failed(error)
        return 1
    return 0


class EventPrinter:
    """Turns a builder's progress into events: the first of a stage starts it, a fraction of 1 ends it."""

    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._last = 0.0

    def progress(self, progress: Progress) -> None:
        """Print what is new, at a rate a terminal can follow; starts and ends always."""
        stage, now = progress.stage, time.monotonic()
        if stage not in self._started:
            self._started[stage] = now
            self._print(SetupEvent(step=stage, state="started", message=progress.message))
        elif progress.fraction is None or progress.fraction < 1:
            if now - self._last < 1 / EVENTS_PER_S:
                return
            self._last = now
            percent = None if progress.fraction is None else round(100 * progress.fraction, 1)
            self._print(SetupEvent(step=stage, state="progress", message=progress.message, percent=percent))
        if progress.fraction == 1:
            took_s = round(now - self._started.pop(stage), 3)
            self._print(SetupEvent(step=stage, state="done", message=progress.message, duration_s=took_s))

    def failed(self, error: HearthError) -> None:
        """Print the event that ends a set-up that did not succeed."""
        step = next(reversed(self._started), "setup")
        message = f"{error.brief}: {error.details}" if error.details else error.brief
        self._print(SetupEvent(step=step, state="failed", message=message, resolution=error.resolution))

    def _print(self, event: SetupEvent) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.buffer.flush()
