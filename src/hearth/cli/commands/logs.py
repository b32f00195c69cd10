"""`hearth logs`: a command's output, from a cursor on, and with --follow its exit code as `exec` gives it."""

from __future__ import annotations

import argparse
import sys

from hearth.cli.descriptors import STDERR, STDOUT, write_all
from hearth.cli.exits import EXEC_FAILED, exec_status, show_error
from hearth.errors import HearthError
from hearth.sdk.client import Client

USAGE = EXEC_FAILED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("exec", metavar="EXEC", help="the command's id, as 'hearth execs' lists it")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
    parser.add_argument("--after", type=int, default=0, metavar="CURSOR", help="only what comes after (default: 0)")


def run(arguments: argparse.Namespace) -> int:
    try:
        with (
            Client() as client,
            client.commands.logs(arguments.exec, after=arguments.after, follow=arguments.follow) as running,
        ):
            for output in running:
                write_all(STDOUT if output.stream == "stdout" else STDERR, output.data)
            if running.lost_bytes:
                sys.stderr.write(f"hearth: {running.lost_bytes} bytes of the output are no longer kept\n")
            return running.exit_code if arguments.follow else 0
    except HearthError as error:
        show_error(error)
        return exec_status(error)
