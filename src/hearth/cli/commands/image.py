"""`hearth image`: lists what sandboxes can be made of, `hearth images` for short; makes one of a sandbox's disk."""

from __future__ import annotations

import argparse

from hearth.cli.arguments import add_actions, add_json
from hearth.cli.show import age, show_json, show_table, size
from hearth.sdk.client import Client

COLUMNS = ("name", "kind", "size", "sha256", "age")
SHOWN_DIGITS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    actions = add_actions(parser)
    text = "list images (the default)"
    add_json(actions.add_parser("list", help=text, description=text), again=True)
    text = "make an image of a sandbox's disk"
    save = actions.add_parser("save", help=text, description=text)
    save.add_argument("sandbox", help="id or name")
    save.add_argument("name", help="what to call the image")
    add_json(save, again=True)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        if arguments.action == "save":
            return _save(client, arguments)
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


def _save(client: Client, arguments: argparse.Namespace) -> int:
    image = client.save_image(arguments.sandbox, arguments.name)
    if arguments.json:
        show_json(image)
    else:
        print(image.name)
    return 0
