"""`hearth sessions`: the terminals and piped sessions of a sandbox: lists and ends them."""

from __future__ import annotations

import argparse
import sys

from hearth.api.session_schemas import SessionView
from hearth.cli.arguments import add_actions, add_json
from hearth.cli.commands.execs import SHOWN_CHARS
from hearth.cli.consent import add_yes, agreed
from hearth.cli.each import to_each
from hearth.cli.exits import FAILED, USAGE, show_misuse
from hearth.cli.show import age, show_json, show_table
from hearth.sdk.client import Client

COLUMNS = ("id", "kind", "state", "attached", "age", "command")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = add_actions(parser)
    text = "list the sessions of a sandbox, which is woken"
    listing = actions.add_parser("list", help=text, description=text)
    listing.add_argument("sandbox", help="id or name")
    add_json(listing)
    text = "end sessions and all that runs in them"
    end = actions.add_parser("end", help=text, description=text)
    end.add_argument("sandbox", help="id or name")
    end.add_argument("session", nargs="+", help="id, as 'hearth sessions list' shows it")
    add_yes(end)
    add_json(end)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        match arguments.action:
            case "list":
                return _list(client, arguments)
            case "end":
                return _end(client, arguments)
    show_misuse("say what to do with sessions", "'hearth sessions --help' lists what can be done")
    return USAGE


def _list(client: Client, arguments: argparse.Namespace) -> int:
    found = client.sessions(arguments.sandbox).list()
    if arguments.json:
        show_json(found)
    else:
        show_table(COLUMNS, [_row(each) for each in found])
    return 0


def _end(client: Client, arguments: argparse.Namespace) -> int:
    names = ", ".join(arguments.session)
    if not agreed(arguments, f"End {names}", deed="ending", loss=f"what runs in {names} would be killed"):
        sys.stderr.write("hearth: nothing was ended\n")
        return FAILED
    return to_each(arguments.session, client.sessions(arguments.sandbox).kill, json=arguments.json)


def _row(session: SessionView) -> tuple[str, ...]:
    command = session.argv.encode("unicode_escape").decode()
    return (
        session.session_id,
        "terminal" if session.tty else "piped",
        "running" if session.running else f"exited {session.exit_code}",
        "yes" if session.attached else "no",
        age(session.created_at),
        command if len(command) <= SHOWN_CHARS else command[: SHOWN_CHARS - 1] + "…",
    )
