"""`hearth list`."""

from __future__ import annotations

import argparse

from hearth.cli.arguments import add_json, read_pairs
from hearth.cli.show import age, show_json, show_table
from hearth.sdk.client import Client

COLUMNS = ("name", "id", "state", "heat", "image", "cpus", "memory", "age", "cause", "labels")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-l", "--label", metavar="KEY=VALUE", action="append", default=[], help="only those with it")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        views = [sandbox.view for sandbox in client.list(read_pairs(arguments.label, what="--label"))]
    if arguments.json:
        show_json(views)
        return 0
    rows = [
        (
            view.name,
            view.id,
            view.state,
            view.heat,
            view.image,
            str(view.cpus),
            f"{view.memory_mb} MiB",
            age(view.created_at),
            view.exit_cause.kind if view.exit_cause else "",
            ",".join(f"{key}={value}" for key, value in sorted(view.labels.items())),
        )
        for view in views
    ]
    show_table(COLUMNS, rows)
    return 0
