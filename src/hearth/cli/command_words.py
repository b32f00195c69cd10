"""What may stand on the command line, read off the parsers, for completion. Loads every command: it takes a while."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module

from hearth.cli.arguments import Parser

FILES, NOTHING = "@files", "@nothing"
NAMES = {
    "sandbox": "+sandboxes",
    "snapshot": "+snapshots",
    "volume": "+volumes",
    "image": "+images",
    "template": "+templates",
    "source": "+sources",
    "FILE": FILES,
    "SANDBOX": "+sandboxes",
    "USER": "+users",
}
"""What an argument is completed with, by its ``dest`` or ``metavar``: ``+`` and a kind of names, or files."""
OF_COMMANDS = {
    ("secret delete", "name"): "+secrets",
    ("machine-template delete", "template"): "+machine-templates",
    ("restore", "name"): NOTHING,
    ("create", "volume"): NOTHING,
    ("create", "secret_file"): "+secrets",
    ("create", "secret"): "+secrets",
    ("exec", "secret"): "+secrets",
    ("exec", "words"): "+sandboxes",
    ("user edit", "user"): "+users",
    ("user inspect", "user"): "+users",
    ("user delete", "user"): "+users",
    ("quota show", "user"): "+users",
    ("quota set", "user"): "+users",
    ("audit", "user"): "+users",
    ("key rotate", "key"): "+keys",
    ("key revoke", "key"): "+keys",
    ("image save", "name"): NOTHING,
    ("config check", "file"): FILES,
    ("file cp", "source"): FILES,
    ("file cp", "target"): FILES,
    ("completion", "shell"): NOTHING,
}
"""Where a ``dest`` means something else than elsewhere."""
_OPTION = re.compile(r"^  (?:(-\w)(?: [A-Z\[<:]+)?, )?(--[a-z][a-z0-9-]*)(?:[ =]([A-Z<{]\S*))?", re.MULTILINE)
HELP_S = 30.0


@dataclass(frozen=True, kw_only=True)
class Place:
    """What may follow on a path of words: other words, options, and how options and arguments are completed.

    ``values``: of each option that takes one, choices or what NAMES holds. ``arguments``: the same of each positional
    argument, in order; with ``repeats`` the last of them any number of times.
    """

    path: str
    words: Mapping[str, str]
    options: tuple[str, ...]
    values: Mapping[str, str]
    arguments: tuple[str, ...]
    repeats: bool


def places(commands: Mapping[str, str], passed_on: Mapping[str, tuple[str, tuple[str, ...]]]) -> Iterator[Place]:
    """Give every place of the command line; the first is its beginning."""
    yield Place(path="", words=commands, options=("--help", "--version"), values={}, arguments=(), repeats=False)
    for name, text in commands.items():
        if name in passed_on:
            yield _told_by_help(name, *passed_on[name])
            continue
        parser = Parser(prog=f"hearth {name}", description=text)
        import_module(f"hearth.cli.commands.{name.replace('-', '_')}").add_arguments(parser)
        yield from _of_parser(name, parser)


def _of_parser(path: str, parser: argparse.ArgumentParser) -> Iterator[Place]:
    options: list[str] = []
    values: dict[str, str] = {}
    arguments: list[str] = []
    words: dict[str, str] = {}
    children: list[tuple[str, argparse.ArgumentParser]] = []
    repeats = False
    for action in parser._actions:  # argparse has no public way to look at them
        if isinstance(action, argparse._SubParsersAction):
            helps = {each.dest: each.help or "" for each in action._choices_actions}
            words = {name: helps.get(name, "") for name in action.choices}
            children = list(action.choices.items())
        elif action.option_strings:
            options += action.option_strings
            if action.nargs != 0:
                values |= dict.fromkeys(action.option_strings, _completed(path, action))
        else:
            arguments.append(_completed(path, action))
            repeats = action.nargs in ("+", "*")
    yield Place(
        path=path,
        words=words,
        options=tuple(options),
        values=values,
        arguments=tuple(arguments),
        repeats=repeats,
    )
    for name, child in children:
        yield from _of_parser(f"{path} {name}", child)


def _completed(path: str, action: argparse.Action) -> str:
    if action.choices is not None:
        return " ".join(map(str, action.choices))
    if (path, action.dest) in OF_COMMANDS:
        return OF_COMMANDS[path, action.dest]
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    return NAMES.get(action.dest) or NAMES.get(metavar) or NOTHING


def _told_by_help(name: str, module: str, first: tuple[str, ...]) -> Place:
    """Read the options off the help of a program of its own, whose parser is not ours to load."""
    command = [sys.executable, "-m", module, *first, "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=HELP_S, check=False)
    found = _OPTION.findall(shown.stdout)
    options = [flag for short, long, _ in found for flag in (short, long) if flag]
    values = {
        flag: NAMES.get(value, NOTHING) for short, long, value in found if value for flag in (short, long) if flag
    }
    return Place(path=name, words={}, options=tuple(options), values=values, arguments=(), repeats=False)
