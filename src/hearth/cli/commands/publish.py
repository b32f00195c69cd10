"""`hearth publish`: gives a port of a sandbox a public URL; lists those of one sandbox or of all, takes them away."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hearth.api.port_schemas import CertificateView, PublicationView
from hearth.cli.arguments import add_json
from hearth.cli.show import age, show_done, show_json, show_table
from hearth.errors import InvalidInput
from hearth.sdk.client import Client

COLUMNS = ("port", "alias", "url", "age", "certificate")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", nargs="?", help="id or name (default: list those of all)")
    parser.add_argument("-p", "--port", type=int, metavar="PORT", help="the port inside (default: list what there is)")
    parser.add_argument("--list", action="store_true", help="list them; without a sandbox those of all")
    parser.add_argument("-a", "--alias", metavar="NAME", help="name in the URL (default: made of the sandbox's name)")
    parser.add_argument("--remove", action="store_true", help="take the port's URL away")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    with Client() as client:
        if arguments.sandbox is None:
            return _list(client.ports.every_published(), json=arguments.json, all_of_them=True)
        if arguments.remove:
            client.ports.unpublish(arguments.sandbox, arguments.port)
            show_done(str(arguments.port), json=arguments.json)
            return 0
        if arguments.port is None:
            return _list(client.ports.published(arguments.sandbox), json=arguments.json)
        made = client.ports.publish(arguments.sandbox, arguments.port, alias=arguments.alias)
    if arguments.json:
        show_json(made)
    else:
        print(made.url)
        if made.certificate is not None and made.certificate.state != "ready":
            sys.stderr.write(
                "hearth: its certificate is being ordered; 'hearth publish --list' tells how that stands\n"
            )
    return 0


def _check(arguments: argparse.Namespace) -> None:
    changes = arguments.port is not None or arguments.remove or arguments.alias
    if arguments.sandbox is None and changes:
        raise InvalidInput("no sandbox", details="SANDBOX is missing", resolution="say whose port", field="sandbox")
    if arguments.port is None and changes:
        raise InvalidInput("no port", details="--port is missing", resolution="say which with -p PORT", field="port")
    if arguments.list and changes:
        raise InvalidInput("--list only lists", resolution="leave it out, or leave out the others", field="--list")


def _list(found: Sequence[PublicationView], *, json: bool, all_of_them: bool = False) -> int:
    if json:
        show_json(found)
    elif all_of_them:
        rows = [(each.sandbox or "", each.owner or "", *_row(each)) for each in found]
        show_table(("sandbox", "owner", *COLUMNS), rows)
    else:
        show_table(COLUMNS, [_row(each) for each in found])
    return 0


def _row(each: PublicationView) -> tuple[str, ...]:
    return (str(each.port), each.alias, each.url, age(each.created_at), _certificate(each.certificate))


def _certificate(certificate: CertificateView | None) -> str:
    if certificate is None:
        return ""
    words: str = certificate.state
    if certificate.expires_at is not None:
        words = f"until {certificate.expires_at:%Y-%m-%d}"
    return words if certificate.error is None else f"{words}: {certificate.error}"
