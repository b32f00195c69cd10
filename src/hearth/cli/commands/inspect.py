"""`hearth inspect`."""

from __future__ import annotations

import argparse

from hearth.cli.arguments import add_json
from hearth.cli.show import show_json, show_table
from hearth.sdk.client import Client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", help="id or name")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        view = client.get(arguments.sandbox).view
    if arguments.json:
        show_json(view)
        return 0
    rows = [
        ("id", view.id),
        ("name", view.name),
        ("state", view.state),
        *([("error", view.error)] if view.error else []),
        ("image", view.image),
        ("cpus", str(view.cpus)),
        ("memory", f"{view.memory_mb} MiB"),
        ("created", view.created_at.isoformat(timespec="seconds")),
        *((f"label {key}", value) for key, value in sorted(view.labels.items())),
        *((f"step {timing.name}", f"{timing.duration_ms:.1f} ms") for timing in view.timings),
    ]
    show_table(("field", "value"), rows)
    return 0
