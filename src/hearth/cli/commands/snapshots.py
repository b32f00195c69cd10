"""`hearth snapshots`: makes and lists checkpoints, shows one, draws where they come from, deletes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

from hearth.api.sleep_schemas import SnapshotView
from hearth.cli.arguments import add_actions, add_json
from hearth.cli.commands import checkpoint
from hearth.cli.consent import add_yes, agreed
from hearth.cli.each import to_each
from hearth.cli.exits import FAILED
from hearth.cli.show import age, show_json, show_table, size
from hearth.sdk.client import Client

COLUMNS = ("name", "id", "state", "sandbox", "parent", "image", "memory", "size", "age")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    actions = add_actions(parser)
    for name, text in (("list", "list checkpoints (the default)"), ("tree", "draw which checkpoint came from which")):
        add_json(actions.add_parser(name, help=text, description=text), again=True)
    text = "keep a sandbox's memory and disk under a name, as 'hearth checkpoint' does"
    create = actions.add_parser("create", help=text, description=text)
    create.add_argument("sandbox", help="id or name")
    create.add_argument("name", help="what to call the checkpoint")
    add_json(create, again=True)
    text = "show one checkpoint"
    inspect = actions.add_parser("inspect", help=text, description=text)
    inspect.add_argument("snapshot", help="id or name")
    add_json(inspect, again=True)
    text = "delete checkpoints; what others need of them stays"
    delete = actions.add_parser("delete", help=text, description=text)
    delete.add_argument("snapshot", nargs="+", help="id or name")
    add_yes(delete)
    add_json(delete, again=True)


def run(arguments: argparse.Namespace) -> int:
    if arguments.action == "create":
        return checkpoint.run(arguments)
    with Client() as client:
        if arguments.action == "delete":
            return _delete(client, arguments)
        if arguments.action == "inspect":
            return _inspect(client, arguments)
        snapshots = client.snapshots()
    if arguments.json:
        show_json(snapshots)
    else:
        drawn = tree(snapshots) if arguments.action == "tree" else [("", each) for each in snapshots]
        names = {each.id: each.name for each in snapshots}
        show_table(COLUMNS, [_row(branch, each, names) for branch, each in drawn])
    return 0


def tree(snapshots: Sequence[SnapshotView]) -> Iterator[tuple[str, SnapshotView]]:
    """Give all checkpoints, each below the one it came from, with the branch that leads to it; oldest first.

    One whose parent is not among them stands at the root.
    """
    known = {each.id for each in snapshots}
    children: dict[str | None, list[SnapshotView]] = {}
    for each in snapshots:
        children.setdefault(each.parent if each.parent in known else None, []).append(each)
    waiting = [("", "", each) for each in reversed(children.get(None, []))]
    while waiting:
        branch, indent, each = waiting.pop()
        yield branch, each
        below = children.get(each.id, [])
        for number, child in reversed(list(enumerate(below, 1))):
            is_last = number == len(below)
            waiting.append((indent + ("└─ " if is_last else "├─ "), indent + ("   " if is_last else "│  "), child))


def field_rows(snapshot: SnapshotView) -> list[tuple[str, str]]:
    """Give what people see of one checkpoint."""
    return [
        ("id", snapshot.id),
        ("name", snapshot.name),
        ("state", snapshot.state),
        ("sandbox", f"{snapshot.sandbox_name} ({snapshot.sandbox_id})"),
        *([("parent", snapshot.parent)] if snapshot.parent else []),
        ("image", snapshot.image),
        ("cpus", str(snapshot.cpus)),
        ("memory", f"{snapshot.memory_mb} MiB"),
        ("size", size(snapshot.size_bytes)),
        ("created", snapshot.created_at.isoformat(timespec="seconds")),
    ]


def _row(branch: str, snapshot: SnapshotView, names: dict[str, str]) -> tuple[str, ...]:
    return (
        branch + snapshot.name,
        snapshot.id,
        snapshot.state,
        snapshot.sandbox_name,
        names.get(snapshot.parent, snapshot.parent) if snapshot.parent else "",
        snapshot.image,
        f"{snapshot.memory_mb} MiB",
        size(snapshot.size_bytes),
        age(snapshot.created_at),
    )


def _inspect(client: Client, arguments: argparse.Namespace) -> int:
    snapshot = client.snapshot(arguments.snapshot)
    if arguments.json:
        show_json(snapshot)
    else:
        show_table(("field", "value"), field_rows(snapshot))
    return 0


def _delete(client: Client, arguments: argparse.Namespace) -> int:
    names = ", ".join(arguments.snapshot)
    if not agreed(arguments, f"Delete {names}", deed="deleting", loss=f"{names} would be lost for good"):
        sys.stderr.write("hearth: nothing was deleted\n")
        return FAILED
    return to_each(arguments.snapshot, client.delete_snapshot, json=arguments.json)
