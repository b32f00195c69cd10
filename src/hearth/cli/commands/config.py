"""`hearth config`: what is configured, and who said it: the daemon's part is its own to tell, the client's is ours."""

from __future__ import annotations

import argparse
import os

from hearth.cli.arguments import add_actions, add_json
from hearth.cli.child import become
from hearth.cli.exits import USAGE, show_misuse
from hearth.cli.show import show_json, show_table
from hearth.sdk.client_file import KEYS, client_file, read_client_file

HIDDEN = "********"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = add_actions(parser)
    show = actions.add_parser("show", help="tell each setting of the daemon and who said it", description="")
    show.add_argument("--config", metavar="FILE", help="the file to read, as 'hearth serve' takes it")
    add_json(show)
    check = actions.add_parser("check", help="tell whether a file is right, and what to do where not", description="")
    check.add_argument("file", metavar="FILE", help="a file for 'hearth serve --config'")
    add_json(check)
    actions.add_parser("default", help="print a file with every setting as a comment", description="")
    add_json(actions.add_parser("client", help="tell which daemon we call, and who said so", description=""))


def run(arguments: argparse.Namespace) -> int:
    match arguments.action:
        case "client":
            return _show_client(json=arguments.json)
        case "show":
            config = [] if arguments.config is None else ["--config", arguments.config]
            become("hearth.server", ["config", "show", *config, *(["--json"] if arguments.json else [])])
        case "check":
            become("hearth.server", ["config", "check", arguments.file, *(["--json"] if arguments.json else [])])
        case "default":
            become("hearth.server", ["config", "default"])
    show_misuse("say what to do: show, check, default or client", "'hearth config --help' tells more")
    return USAGE


def _show_client(*, json: bool) -> int:
    """Show what the environment and the client's file say, the token hidden."""
    path = client_file(os.environ)
    local = os.environ.get("HEARTH_URL") or os.environ.get("HEARTH_DATA")
    stored = {} if local else read_client_file(path)
    rows = []
    for key in KEYS:
        variable = f"HEARTH_{key.upper()}"
        value, source = os.environ.get(variable), f"environment: {variable}"
        if not value:
            value, source = stored.get(key), f"file: {path}" if key in stored else "default"
        rows.append((key, HIDDEN if key == "token" and value else value or "", source))
    if json:
        show_json({key: {"value": value or None, "source": source} for key, value, source in rows})
    else:
        show_table(("name", "value", "who said it"), rows)
    return 0
