"""`hearth logs`: a command's output, from a cursor on, and with --follow its exit code as `exec` gives it."""

from __future__ import annotations

import argparse
import base64
import sys

import msgspec

from hearth.cli.descriptors import STDERR, STDOUT, write_all
from hearth.cli.exits import EXEC_FAILED, exec_status, show_error
from hearth.errors import HearthError
from hearth.sdk.client import Client
from hearth.sdk.results import Output

USAGE = EXEC_FAILED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("exec", metavar="EXEC", help="the command's id, as 'hearth execs' lists it")
    parser.add_argument("-f", "--follow", action="store_true", help="go on until it ends")
    parser.add_argument("--after", type=int, default=0, metavar="CURSOR", help="only what comes after (default: 0)")
    parser.add_argument("--json", action="store_true", help="write JSON, one object a line")


def run(arguments: argparse.Namespace) -> int:
    try:
        with (
            Client() as client,
            client.commands.logs(arguments.exec, after=arguments.after, follow=arguments.follow) as running,
        ):
            for output in running:
                if arguments.json:
                    write_all(STDOUT, json_line(output))
                else:
                    write_all(STDOUT if output.stream == "stdout" else STDERR, output.data)
            if running.lost_bytes:
                sys.stderr.write(f"hearth: {running.lost_bytes} bytes of the output are no longer kept\n")
            return running.exit_code if arguments.follow else 0
    except HearthError as error:
        show_error(error)
        return exec_status(error)


def json_line(output: Output) -> bytes:
    """Give a piece of output for programs, bytes that are no text in base64."""
    told: dict[str, object] = {"stream": output.stream}
    try:
        told |= {"data": output.data.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        told |= {"data": base64.b64encode(output.data).decode(), "encoding": "base64"}
    return msgspec.json.encode(told) + b"\n"
