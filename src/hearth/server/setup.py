"""`setup`: makes this host ready and prints each step as one JSON object a line, for the CLI to show."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from hearth.api.reports import SetupEvent
from hearth.config import DataDirectory, load_data_directory
from hearth.control.setup import images_there, set_up
from hearth.errors import HearthError
from hearth.image.progress import Progress
from hearth.server.logs import configure
from hearth.settings.options import load_settings

EVENTS_PER_S = 10
"""More than a person can read; a download reports every chunk."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `setup` takes."""
    parser.add_argument("--json-lines", action="store_true", help="print events as JSON, one a line (the only form)")
    parser.add_argument("--check", action="store_true", help="make nothing, tell what is there")
    parser.add_argument("--config", metavar="FILE", type=Path, help="file of settings, as 'serve' takes it")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="warning")


def run(arguments: argparse.Namespace) -> int:
    """Set this host up; 1 when a step failed, which the last event tells."""
    configure("console", arguments.log_level)
    printer = EventPrinter()
    try:
        if arguments.check:
            return printer.checked(images_there(data_of(arguments)))
        asyncio.run(set_up(data_of(arguments), printer.progress))
    except HearthError as error:
        printer.failed(error)
        return 1
    return 0


def data_of(arguments: argparse.Namespace) -> DataDirectory:
    """Give the data directory that `serve` would take.

    Raises:
        HearthError: the configuration is not right.
    """
    flags = argparse.Namespace(config=arguments.config)
    chosen = load_settings(flags).arguments.data
    return DataDirectory(root=chosen) if chosen else load_data_directory()


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

    def checked(self, found: Mapping[str, bool]) -> int:
        """Print whether each thing is there; gives the status."""
        for name, is_there in found.items():
            state: Literal["done", "failed"] = "done" if is_there else "failed"
            message, resolution = ("is there", "") if is_there else ("is missing", "run 'hearth setup'")
            self._print(SetupEvent(step=name, state=state, message=message, resolution=resolution))
        return 0 if all(found.values()) else 1

    def failed(self, error: HearthError) -> None:
        """Print the event that ends a set-up that did not succeed."""
        step = next(reversed(self._started), "setup")
        message = f"{error.brief}: {error.details}" if error.details else error.brief
        self._print(SetupEvent(step=step, state="failed", message=message, resolution=error.resolution))

    def _print(self, event: SetupEvent) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.buffer.flush()
