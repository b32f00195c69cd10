"""`hearth machine-template`: machines kept ready to be cloned: lists them, makes one ahead of its use, drops them."""

from __future__ import annotations

import argparse
import sys

from hearth.api.sleep_schemas import MachineTemplateView
from hearth.cli.arguments import add_actions, add_json, add_shape
from hearth.cli.consent import add_yes, agreed
from hearth.cli.each import to_each
from hearth.cli.exits import FAILED
from hearth.cli.show import age, show_json, show_table, size
from hearth.sdk.client import Client
from hearth.sdk.sleep_calls import ShapeOptions

COLUMNS = ("id", "image", "cpus", "memory", "size", "uses", "used", "age")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    actions = add_actions(parser)
    text = "list them (the default)"
    add_json(actions.add_parser("list", help=text, description=text), again=True)
    text = "boot a machine and keep it ready, so that not even the first creation of its kind has to boot"
    warm = actions.add_parser("warm", help=text, description=text)
    warm.add_argument("image", help="what its disk is made of")
    add_shape(warm)
    add_json(warm, again=True)
    text = "drop some; the next creation of that kind boots"
    delete = actions.add_parser("delete", help=text, description=text)
    delete.add_argument("template", nargs="+", help="id")
    add_yes(delete)
    add_json(delete, again=True)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        if arguments.action == "delete":
            return _delete(client, arguments)
        if arguments.action == "warm":
            return _warm(client, arguments)
        templates = client.machine_templates()
    if arguments.json:
        show_json(templates)
    else:
        show_table(COLUMNS, [_row(each) for each in templates])
    return 0


def _warm(client: Client, arguments: argparse.Namespace) -> int:
    template = client.warm_machine_template(**_shape(arguments))
    if arguments.json:
        show_json(template)
    else:
        print(template.id)
    return 0


def _shape(arguments: argparse.Namespace) -> ShapeOptions:
    shape: ShapeOptions = {"image": arguments.image}
    if arguments.cpus is not None:
        shape["cpus"] = arguments.cpus
    if arguments.memory_mb is not None:
        shape["memory_mb"] = arguments.memory_mb
    return shape


def _row(template: MachineTemplateView) -> tuple[str, ...]:
    return (
        template.id,
        template.image,
        str(template.cpus),
        f"{template.memory_mb} MiB",
        size(template.size_bytes),
        str(template.uses),
        age(template.used_at),
        age(template.created_at),
    )


def _delete(client: Client, arguments: argparse.Namespace) -> int:
    names = ", ".join(arguments.template)
    if not agreed(arguments, f"Drop {names}", deed="dropping", loss=f"{names} would have to be booted again"):
        sys.stderr.write("hearth: nothing was dropped\n")
        return FAILED
    return to_each(arguments.template, client.delete_machine_template, json=arguments.json)
