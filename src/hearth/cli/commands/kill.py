"""`hearth kill`: sends a signal to commands in sandboxes."""

from __future__ import annotations

import argparse

from hearth.cli.arguments import add_json
from hearth.cli.each import to_each
from hearth.sdk.client import Client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("exec", nargs="+", metavar="EXEC", help="the command's id, as 'hearth execs' lists it")
    parser.add_argument("-s", "--signal", default="KILL", metavar="NAME", help="which signal (default: KILL)")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    signal = int(arguments.signal) if arguments.signal.isdigit() else arguments.signal.upper()
    with Client() as client:
        return to_each(arguments.exec, lambda exec_id: client.commands.kill(exec_id, signal), json=arguments.json)
