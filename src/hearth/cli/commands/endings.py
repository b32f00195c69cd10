"""`hearth endings`: the sandboxes that were destroyed and why each ended; `hearth inspect` shows one whole."""

from __future__ import annotations

import argparse

from hearth.cli.arguments import add_json
from hearth.cli.show import age, show_json, show_table
from hearth.sdk.client import Client

COLUMNS = ("name", "id", "cause", "detail", "image", "ended")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        endings = client.endings()
    if arguments.json:
        show_json(endings)
        return 0
    rows = [
        (
            ending.name,
            ending.sandbox_id,
            ending.exit_cause.kind,
            ending.exit_cause.detail,
            ending.image,
            age(ending.ended_at),
        )
        for ending in endings
    ]
    show_table(COLUMNS, rows)
    return 0
