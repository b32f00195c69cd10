"""The parsers of the command line as they are: what a command takes, read from where it is declared."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import NoReturn

from hearth.bench.__main__ import build_parser as bench_parser
from hearth.cli.arguments import Parser
from hearth.cli.command_table import ALIASES, COMMANDS, PASSED_ON
from hearth.server.__main__ import SUBCOMMANDS

USAGE_WIDTH = 84
"""Columns that a block of a page shows without being scrolled."""


class WrongUsage(Exception):
    """A line that a command does not take."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option or argument: how it is spelled with its values, and what its help says."""

    flags: tuple[str, ...]
    spelled: str
    help: str


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command or action: its words, its help, its usage line, what it takes."""

    words: str
    help: str
    usage: str
    options: tuple[Option, ...]


def every_command() -> Iterator[Command]:
    """Give all commands in the order of the help, each followed by its actions."""
    for name, text in COMMANDS.items():
        parser = parser_of(name)
        yield _describe(f"hearth {name}", text, parser)
        for action, (child, help_text) in _actions(parser).items():
            yield _describe(f"hearth {name} {action}", help_text, child)


def parser_of(name: str) -> argparse.ArgumentParser:
    """Give the parser of one command, whichever program reads its line."""
    if name not in PASSED_ON:
        module = import_module(f"hearth.cli.commands.{name.replace('-', '_')}")
        parser = Parser(prog=f"hearth {name}", description=COMMANDS[name], usage_status=2)
        module.add_arguments(parser)
        return parser
    module_name, first = PASSED_ON[name]
    if module_name == "hearth.bench":
        return bench_parser()
    passed_on = argparse.ArgumentParser(prog=f"hearth {name}", description=COMMANDS[name], allow_abbrev=False)
    if first:
        (chosen,) = (each for each in SUBCOMMANDS if (each.name,) == first)
        chosen.add_arguments(passed_on)
    else:
        import_module(module_name).add_arguments(passed_on)
    return passed_on


def check_line(words: Sequence[str]) -> None:
    """See that ``hearth WORDS`` is a line the command line takes; values are read as far as the parsers read them.

    Raises:
        WrongUsage: there is no such command, or its parser refuses the line.
    """
    name = ALIASES.get(words[0], words[0]) if words else "--help"
    if name in ("--help", "-h", "help", "version"):
        return
    if name not in COMMANDS:
        raise WrongUsage(f"there is no command {name!r}")
    if {"--help", "-h"} & set(words[1:2]):
        return
    parser = parser_of(name)
    _refuse_by_raising(parser)
    parser.parse_args(list(words[1:]))


def flags_of(name: str) -> frozenset[str]:
    """Give every flag that a command or one of its actions takes."""
    parser = parser_of(ALIASES.get(name, name))
    parsers = [parser, *(child for child, _ in _actions(parser).values())]
    return frozenset(flag for each in parsers for action in each._actions for flag in action.option_strings)


def actions_of(name: str) -> frozenset[str]:
    """Give the actions of a command; none where it takes something else."""
    name = ALIASES.get(name, name)
    return frozenset(_actions(parser_of(name))) if name in COMMANDS else frozenset()


def _actions(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return {name: (child, helps.get(name, "")) for name, child in action.choices.items()}
    return {}


def _describe(words: str, text: str, parser: argparse.ArgumentParser) -> Command:
    options = tuple(
        _option(action)
        for action in parser._actions
        if not isinstance(action, (argparse._SubParsersAction, argparse._HelpAction))
    )
    parser.formatter_class = partial(argparse.HelpFormatter, width=USAGE_WIDTH)
    usage = textwrap.dedent(" " * len("usage: ") + parser.format_usage().removeprefix("usage: ")).rstrip()
    return Command(words=words, help=text, usage=usage, options=options)


def _option(action: argparse.Action) -> Option:
    if not action.option_strings:
        metavar = action.metavar if isinstance(action.metavar, str) else action.dest
        return Option(flags=(), spelled=metavar, help=_help(action))
    value = "" if action.nargs == 0 else f" {_value(action)}"
    flags = tuple(action.option_strings)
    return Option(flags=flags, spelled=", ".join(flag + value for flag in flags), help=_help(action))


def _value(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    return action.dest.upper()


def _help(action: argparse.Action) -> str:
    text = "" if action.help is None or action.help == argparse.SUPPRESS else action.help
    return text % {**vars(action), "prog": ""} if "%" in text else text


def _refuse_by_raising(parser: argparse.ArgumentParser) -> None:
    def refuse(message: str) -> NoReturn:
        raise WrongUsage(f"{parser.prog}: {message}")

    parser.error = refuse  # type: ignore[method-assign]
    for child, _ in _actions(parser).values():
        _refuse_by_raising(child)
