"""The daemon's process: ``python -m hearth.server COMMAND``; the CLI starts it and reads what it says."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

from hearth.errors import HearthError
from hearth.server import config_tool, doctor, serve, setup
from hearth.server.complaint import complain


@dataclass(frozen=True, kw_only=True)
class Subcommand:
    """One thing this process can be told to do; ``run`` gives the exit status."""

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


SUBCOMMANDS = (
    Subcommand(name="serve", help="serve the API", add_arguments=serve.add_arguments, run=serve.run),
    Subcommand(name="config", help="settings", add_arguments=config_tool.add_arguments, run=config_tool.run),
    Subcommand(name="doctor", help="tell how fit this host is", add_arguments=doctor.add_arguments, run=doctor.run),
    Subcommand(name="setup", help="make this host ready", add_arguments=setup.add_arguments, run=setup.run),
)


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand: 0 done, 1 an error that is told on stderr, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m hearth.server", allow_abbrev=False)
    chosen = parser.add_subparsers(required=True, metavar="COMMAND")
    for subcommand in SUBCOMMANDS:
        child = chosen.add_parser(subcommand.name, help=subcommand.help, allow_abbrev=False)
        subcommand.add_arguments(child)
        child.set_defaults(run=subcommand.run)
    arguments = parser.parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except HearthError as error:
        return complain(error, as_json=getattr(arguments, "json", False))
    except KeyboardInterrupt:
        return 130
    return status


if __name__ == "__main__":
    sys.exit(main())
