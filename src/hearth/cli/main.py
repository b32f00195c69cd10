"""Entry of the ``hearth`` command: a table of commands, of which only the chosen one is loaded."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from itertools import takewhile

from hearth.cli import descriptors
from hearth.cli.arguments import Parser
from hearth.cli.child import become
from hearth.cli.command_table import ALIASES, COMMANDS, HIDDEN, PASSED_ON
from hearth.cli.exits import (
    EXEC_FAILED,
    FAILED,
    INTERRUPTED,
    USAGE,
    leave_quietly,
    show_error,
    show_failed_output,
    show_misuse,
    tell_as_json,
)
from hearth.errors import HearthError
from hearth.version import VERSION

HELP = """usage: hearth COMMAND [ARGUMENTS]

Gives every untrusted program a computer of its own.

commands:
{commands}

'hearth COMMAND --help' tells more about each. The daemon is found by HEARTH_URL and HEARTH_TOKEN,
else as 'hearth setup --client' was told, else by its socket and admin.key in the data directory (HEARTH_DATA).
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and give its exit status; docs/cli.md lists them."""
    gc.disable()  # a command lives for moments; collecting while modules load costs 6 ms and frees nothing
    descriptors.complete()
    words = sys.argv[1:] if argv is None else argv
    tell_as_json("--json" in takewhile("--".__ne__, words))
    try:
        status = _dispatch(words)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return leave_quietly()
    except OSError as error:
        show_failed_output(error)
        return EXEC_FAILED if words[:1] in (["exec"], ["logs"], ["shell"]) else FAILED
    return status


def _dispatch(words: list[str]) -> int:
    name = ALIASES.get(words[0], words[0]) if words else "--help"
    if name in ("--help", "-h", "help"):
        width = max(map(len, COMMANDS))
        sys.stdout.write(HELP.format(commands="\n".join(f"  {each:{width}}  {COMMANDS[each]}" for each in COMMANDS)))
        return 0 if words else USAGE
    if name not in COMMANDS and name not in HIDDEN:
        show_misuse(f"there is no command {name!r}", _closest(name))
        return USAGE
    if name == "version" and words[1:] == []:
        sys.stdout.write(f"hearth {VERSION}\n")
        return 0
    if name in PASSED_ON:
        module, first = PASSED_ON[name]
        become(module, [*first, *words[1:]])
    return _run(name, words[1:])


def _closest(name: str) -> str:
    near: list[str] = import_module("difflib").get_close_matches(name, [*COMMANDS, *ALIASES], n=1, cutoff=0.7)
    return f"did you mean 'hearth {near[0]}'?" if near else "'hearth --help' lists them"


def _run(name: str, words: list[str]) -> int:
    command = import_module(f"hearth.cli.commands.{name.replace('-', '_')}")
    description = COMMANDS.get(name) or HIDDEN[name]
    parser = Parser(prog=f"hearth {name}", description=description, usage_status=getattr(command, "USAGE", USAGE))
    command.add_arguments(parser)
    try:
        arguments = parser.parse_args(words)
        tell_as_json(bool(getattr(arguments, "json", False)))  # what stood behind a command of the sandbox is its own
        status: int = command.run(arguments)
    except HearthError as error:
        show_error(error)
        return FAILED
    return status
