"""`hearth create`."""

from __future__ import annotations

import argparse
import sys
from typing import cast

from hearth.cli.arguments import add_json
from hearth.cli.settings import add_settings, settings_of
from hearth.cli.show import show_json
from hearth.sdk.calls import CreateOptions
from hearth.sdk.client import Client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a name of your own; without it the daemon chooses one")
    parser.add_argument("--from", dest="source", metavar="NAME", help="start from a checkpoint, or fork a sandbox")
    parser.add_argument("--template", metavar="NAME", help="let a template fill what is not said here")
    add_settings(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    options = options_of(arguments)
    with Client() as client:
        view = client.create(**options).view
    if arguments.json:
        show_json(view)
        return 0
    if sys.stderr.isatty():
        for timing in view.timings:
            sys.stderr.write(f"  {timing.duration_ms:9.1f} ms  {timing.name}\n")
    print(view.name)
    return 0


def options_of(arguments: argparse.Namespace) -> CreateOptions:
    """Give what was asked for.

    Raises:
        InvalidInput: an option cannot be read.
    """
    options = cast("CreateOptions", settings_of(arguments))
    if arguments.name is not None:
        options["name"] = arguments.name
    if arguments.source is not None:
        options["from_"] = arguments.source
    if arguments.template is not None:
        options["template"] = arguments.template
    return options
