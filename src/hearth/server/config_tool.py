"""`config`: shows what holds and who said it, checks a file, writes one. Needs no daemon."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
from pathlib import Path

from hearth.errors import HearthError
from hearth.server import secure
from hearth.server.options import read_all
from hearth.settings.loading import Loaded, load
from hearth.settings.options import load_settings
from hearth.settings.render import HIDDEN, default_file, documentation, shown_source, shown_value
from hearth.settings.table import SETTINGS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of `config`."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="tell each value and who said it; secrets are hidden", allow_abbrev=False)
    show.add_argument("--config", metavar="FILE", type=Path, help="the file to read, as 'hearth serve' takes it")
    show.add_argument("--json", action="store_true", help="print JSON for programs")
    check = actions.add_parser("check", help="tell whether a file is right", allow_abbrev=False)
    check.add_argument("file", metavar="FILE", type=Path, help="the file")
    check.add_argument("--json", action="store_true", help="print JSON for programs")
    actions.add_parser("default", help="print a file with every setting as a comment", allow_abbrev=False)
    actions.add_parser("docs", help="print the tables of docs/configuration.md", allow_abbrev=False)


def run(arguments: argparse.Namespace) -> int:
    """Do one of them.

    Raises:
        HearthError: what was checked, or would hold, is not right.
    """
    if arguments.action == "show":
        show(load_settings(arguments), as_json=arguments.json)
    elif arguments.action == "check":
        count = check(arguments.file)
        report = json.dumps({"file": str(arguments.file), "settings": count}) if arguments.json else None
        sys.stdout.write(f"{report or f'{arguments.file}: {count} settings, all right'}\n")
    else:
        sys.stdout.write(default_file() if arguments.action == "default" else documentation())
    return 0


def check(file: Path) -> int:
    """Judge a file by itself, as a daemon with it and nothing else would; gives how many settings it has.

    Raises:
        HearthError: it is not right; ``field`` names the setting.
    """
    loaded = load(argparse.Namespace(), {}, file.absolute(), must_exist=True)
    examine(loaded)
    return sum(said.where != "" for said in loaded.said.values())


def examine(loaded: Loaded) -> None:
    """Do what the daemon does with settings before it opens anything.

    Raises:
        HearthError: they make no sense together, or a file they name cannot be used.
    """
    try:
        secure.context_of(read_all(loaded.arguments, os.environ).encrypted)
    except HearthError as error:
        raise loaded.explain(error) from error.__cause__


def show(loaded: Loaded, *, as_json: bool) -> None:
    """Print every setting."""
    rows = [
        (setting.name, shown_value(setting, loaded.said[setting.name].value), loaded.said[setting.name])
        for setting in SETTINGS
    ]
    if as_json:
        found = {
            name: {"value": _plain(text), "source": str(said.source), "where": said.where} for name, text, said in rows
        }
        file = None if loaded.file is None else str(loaded.file)
        sys.stdout.write(json.dumps({"file": file, "settings": found}, indent=2) + "\n")
        return
    names, texts = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    for name, text, said in rows:
        sys.stdout.write(f"{name:{names}}  {text:{texts}}  {shown_source(said)}\n")


def _plain(text: str) -> object:
    if not text or text == HIDDEN:
        return text or None
    return tomllib.loads(f"value = {text}")["value"]
