"""`hearth execs`: the commands of a sandbox, those that run and those that ran."""

from __future__ import annotations

import argparse
import shlex

from hearth.api.exec_schemas import ExecView
from hearth.cli.arguments import add_json
from hearth.cli.show import age, show_json, show_table, size
from hearth.sdk.client import Client

COLUMNS = ("id", "state", "output", "age", "command")
SHOWN_CHARS = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", help="id or name")
    parser.add_argument("-r", "--running", action="store_true", help="only those that run")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        found = client.commands.list(arguments.sandbox)
    if arguments.running:
        found = [each for each in found if each.state == "running"]
    if arguments.json:
        show_json(found)
        return 0
    show_table(
        COLUMNS,
        [(each.id, spoken_state(each), size(each.cursor), age(each.created_at), shown(each.cmd)) for each in found],
    )
    return 0


def spoken_state(found: ExecView) -> str:
    """Say in a word or two where a command stands."""
    if found.state == "exited":
        return f"exited {found.exit_code}"
    return f"failed: {found.problem.code}" if found.problem is not None else found.state


def shown(cmd: list[str]) -> str:
    """Give a command line as a shell would take it, in one line and cut."""
    line = shlex.join(cmd).encode("unicode_escape").decode()
    return line if len(line) <= SHOWN_CHARS else line[: SHOWN_CHARS - 1] + "…"
