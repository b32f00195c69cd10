"""`hearth provisioned`: volumes that were filled from golden images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hearth.api.provision_schemas import ProvisionedVolume
from hearth.cli.arguments import add_actions, add_json
from hearth.cli.commands.provision import GROWTHS, MIB_PER_GIB
from hearth.cli.consent import add_yes, agreed
from hearth.cli.each import to_each
from hearth.cli.show import show_json, show_table, size
from hearth.cli.volumes import read_size
from hearth.sdk.client import Client

COLUMNS = ("volume", "pool", "size", "format", "image", "path")
SHOWN_DIGITS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.set_defaults(pool=None)
    actions = add_actions(parser)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=text, description=text)

    add_json(action("list", "list them (the default)"), again=True)
    show = action("show", "show one")
    show.add_argument("volume", help="its name")
    add_json(show, again=True)
    grow = action("grow", "make one larger, while nobody uses it")
    grow.add_argument("volume", help="its name")
    grow.add_argument("size", help="its new size: 20G")
    grow.add_argument("--grow", choices=GROWTHS, default="table", help="what on it takes the new room")
    add_json(grow, again=True)
    delete = action("delete", "delete volumes that nobody uses")
    delete.add_argument("volume", nargs="+", help="its name")
    add_json(delete, again=True)
    add_yes(delete)
    for each in (show, grow, delete):
        each.add_argument("--pool", help="where it is (default: the daemon's usual one)")


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        volumes = client.provisioning
        match arguments.action:
            case "show":
                return _show([volumes.volume(arguments.volume, pool=arguments.pool)], json=arguments.json)
            case "grow":
                size_gb = read_size(arguments.size) / MIB_PER_GIB
                return _show(
                    [volumes.grow(arguments.volume, size_gb, pool=arguments.pool, grow=arguments.grow)],
                    json=arguments.json,
                )
            case "delete":
                return _delete(client, arguments)
            case _:
                return _list(volumes.volumes(), json=arguments.json)


def _delete(client: Client, arguments: argparse.Namespace) -> int:
    names = ", ".join(arguments.volume)
    if not agreed(arguments, f"delete {names}", deed="deleting", loss=f"{names} would be lost for good"):
        return 1
    return to_each(
        arguments.volume, lambda name: client.provisioning.delete(name, pool=arguments.pool), json=arguments.json
    )


def _list(volumes: Sequence[ProvisionedVolume], *, json: bool) -> int:
    if json:
        show_json(volumes)
        return 0
    return _table(volumes)


def _show(volumes: Sequence[ProvisionedVolume], *, json: bool) -> int:
    if json:
        show_json(volumes[0])
        return 0
    return _table(volumes)


def _table(volumes: Sequence[ProvisionedVolume]) -> int:
    rows = [
        (each.volume_name, each.pool, size(each.size_bytes), each.format, each.image[:SHOWN_DIGITS], each.path)
        for each in volumes
    ]
    show_table(COLUMNS, rows)
    return 0
