"""`hearth publish`: gives a port of a sandbox a public URL, lists and takes away those there are."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hearth.api.port_schemas import PublicationView
from hearth.cli.arguments import add_json
from hearth.cli.show import age, show_json, show_table
from hearth.errors import InvalidInput
from hearth.sdk.client import Client

COLUMNS = ("port", "alias", "url", "age")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", help="id or name")
    parser.add_argument("-p", "--port", type=int, metavar="PORT", help="the port inside (default: list what there is)")
    parser.add_argument("-a", "--alias", metavar="NAME", help="name in the URL (default: made of the sandbox's name)")
    parser.add_argument("--remove", action="store_true", help="take the port's URL away")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.port is None and (arguments.remove or arguments.alias):
        raise InvalidInput("no port", details="--port is missing", resolution="say which with -p PORT", field="port")
    with Client() as client:
        if arguments.remove:
            client.ports.unpublish(arguments.sandbox, arguments.port)
            return 0
        if arguments.port is None:
            return _list(client.ports.published(arguments.sandbox), json=arguments.json)
        made = client.ports.publish(arguments.sandbox, arguments.port, alias=arguments.alias)
    if arguments.json:
        show_json(made)
    else:
        print(made.url)
    return 0


def _list(found: Sequence[PublicationView], *, json: bool) -> int:
    if json:
        show_json(found)
    else:
        show_table(COLUMNS, [(str(each.port), each.alias, each.url, age(each.created_at)) for each in found])
    return 0
