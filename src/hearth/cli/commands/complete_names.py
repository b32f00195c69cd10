"""`hearth complete-names`: what completion asks: names of one kind, one a line; whatever is wrong, it says nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable

from hearth.errors import HearthError
from hearth.sdk.client import Client

KINDS: dict[str, Callable[[Client], Iterable[str]]] = {
    "sandboxes": lambda client: [each.name for each in client.list()],
    "snapshots": lambda client: [each.name for each in client.snapshots()],
    "sources": lambda client: [
        *(each.name for each in client.list()),
        *(each.name for each in client.snapshots()),
    ],
    "volumes": lambda client: [each.name for each in client.volumes()],
    "images": lambda client: [each.name for each in client.images.list() if each.kind == "rootfs"],
    "templates": lambda client: [each.name for each in client.templates.every()],
    "machine-templates": lambda client: [each.id for each in client.machine_templates()],
    "secrets": lambda client: [each.name for each in client.secrets.every()],
    "keys": lambda client: [each.name or each.id for each in client.users.keys_of() if each.valid],
    "users": lambda client: [each.name for each in client.users.every()],
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", choices=sorted(KINDS))


def run(arguments: argparse.Namespace) -> int:
    try:
        with Client(patience_s=0) as client:
            names = sorted(set(KINDS[arguments.kind](client)))
    except HearthError:
        return 1  # whoever presses Tab wants no error between the words
    sys.stdout.writelines(f"{name}\n" for name in names if name.isprintable())
    return 0
