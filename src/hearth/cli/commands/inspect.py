"""`hearth inspect`: one sandbox, or, when it is no more, what is remembered of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from hearth.api.schemas import ExitCauseView, SandboxView
from hearth.api.sleep_schemas import EndingView
from hearth.cli.arguments import add_json
from hearth.cli.net import words_for
from hearth.cli.show import moment, show_json, show_table, size
from hearth.errors import NotFound
from hearth.sdk.client import Client

Row = tuple[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", help="id or name")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        found = find(client, arguments.sandbox)
    if arguments.json:
        show_json(found)
    else:
        rows = rows_of(found) if isinstance(found, SandboxView) else rows_of_ending(found)
        show_table(("field", "value"), list(rows))
    return 0


def find(client: Client, ref: str) -> SandboxView | EndingView:
    """Give the sandbox, else its ending.

    Raises:
        NotFound: there is none and none is remembered.
    """
    try:
        return client.get(ref).view
    except NotFound as missing:
        try:
            return client.ending(ref)
        except NotFound:
            raise missing from None


def _disk_and_template(view: SandboxView) -> Iterator[Row]:
    if view.disk_size_mb is not None:
        yield "disk", size(view.disk_size_mb * 1024 * 1024)
    if view.template_id is not None:
        yield "template", view.template_id


def rows_of(view: SandboxView) -> Iterator[Row]:
    """Give what people see of a living sandbox."""
    yield "id", view.id
    yield "name", view.name
    yield "state", view.state
    yield "heat", view.heat
    if view.error and not (view.exit_cause and view.exit_cause.detail == view.error):
        yield "error", view.error
    yield "image", view.image
    yield "cpus", str(view.cpus)
    yield "memory", f"{view.memory_mb} MiB"
    yield from _disk_and_template(view)
    yield "created", moment(view.created_at)
    yield from rows_of_network(view)
    if view.parent:
        yield "parent", view.parent
    if view.keep_hot:
        yield "sleeps", "never"
    if view.idle_pause_s is not None:
        yield "pauses after", f"{view.idle_pause_s:g} s"
    if view.idle_stop_s is not None:
        yield "stops after", f"{view.idle_stop_s:g} s"
    if view.expires_at:
        yield "expires", moment(view.expires_at)
    if view.stopped_at:
        yield "stopped", moment(view.stopped_at)
    for volume in view.volumes:
        mode = "read-only" if volume.read_only else "read-write"
        yield f"volume {volume.name}", f"{volume.mount}, {mode}"
    if view.exit_cause:
        yield from rows_of_cause(view.exit_cause)
    for key, value in sorted(view.labels.items()):
        yield f"label {key}", value
    for timing in view.timings:
        yield f"step {timing.name}", f"{timing.duration_ms:.1f} ms"


def rows_of_network(view: SandboxView) -> Iterator[Row]:
    """Give what people see of a sandbox's network."""
    if view.address:
        yield "address", view.address
    if view.net_policy:
        yield "reaches", words_for(view.net_policy)


def rows_of_ending(ending: EndingView) -> Iterator[Row]:
    """Give what people see of a sandbox that is no more."""
    yield "id", ending.sandbox_id
    yield "name", ending.name
    yield "state", "destroyed"
    yield "image", ending.image
    yield "cpus", str(ending.cpus)
    yield "memory", f"{ending.memory_mb} MiB"
    yield "created", moment(ending.created_at)
    yield "destroyed", moment(ending.ended_at)
    yield from rows_of_cause(ending.exit_cause)


def rows_of_cause(cause: ExitCauseView) -> Iterator[Row]:
    """Give why a machine ended, the last lines of its console last."""
    yield "exit cause", f"{cause.kind}: {cause.detail}"
    yield "ended", moment(cause.at)
    if cause.process:
        yield "process", cause.process
    for line in cause.console:
        yield "console", line
