"""`hearth image list`, and `hearth images` for short."""

from __future__ import annotations

import argparse

from hearth.cli.arguments import add_json
from hearth.cli.show import age, show_json, show_table, size
from hearth.sdk.client import Client

COLUMNS = ("name", "kind", "size", "sha256", "age")
SHOWN_DIGITS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("list",), default="list")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        images = client.images()
    if arguments.json:
        show_json(images)
        return 0
    rows = [
        (image.name, image.kind, size(image.size_bytes), image.sha256[:SHOWN_DIGITS], age(image.created_at))
        for image in images
    ]
    show_table(COLUMNS, rows)
    return 0
