"""`hearth top`: what sandboxes use, as a table that is drawn anew, or once."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import import_module

from hearth.api.stats_schemas import DaemonStats, SandboxStats
from hearth.cli.arguments import add_json
from hearth.cli.show import show_json, show_table
from hearth.cli.usage_table import COLUMNS, SORT_KEYS, Rates, header, rates_of, row, sorted_by
from hearth.errors import InvalidInput
from hearth.sdk.client import Client

LEAST_S, MOST_S = 1.0, 3600.0
Sample = tuple[DaemonStats, list[Rates]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", nargs="*", help="id or name; all without one")
    parser.add_argument(
        "-i", "--interval", metavar="SECONDS", type=float, default=2.0, help="between two looks (default: 2)"
    )
    parser.add_argument("--once", action="store_true", help="look twice, an interval apart, print one table and end")
    parser.add_argument(
        "-s", "--sort", choices=SORT_KEYS, default="cpu", help="the column that the first have most of (default: cpu)"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    if not LEAST_S <= arguments.interval <= MOST_S:
        raise InvalidInput(
            "invalid --interval",
            details=f"{arguments.interval:g} is not from {LEAST_S:g} to {MOST_S:g} seconds",
            resolution="the daemon looks once a second at most",
            field="interval",
        )
    with Client() as client:
        samples = _samples(client, arguments.sandbox, arguments.interval, arguments.sort)
        if arguments.once:
            return _once(*next(samples), json=arguments.json)
        if arguments.json:
            for daemon, rates in samples:
                show_json(_document(daemon, rates))
                sys.stdout.flush()
        elif sys.stdout.isatty():
            # It takes 60 ms to load, which a pipe need not wait for.
            import_module("hearth.cli.live_table").show(COLUMNS, _drawn(samples))
        else:
            for daemon, rates in samples:
                _once(daemon, rates, json=False)
                sys.stdout.flush()
    return 0


def _samples(client: Client, wanted: Sequence[str], interval_s: float, key: str) -> Iterator[Sample]:
    """Look every interval; the first look only tells what later ones are compared with."""
    before: dict[str, SandboxStats] = {}
    while True:
        stats = [client.stats(ref) for ref in wanted] if wanted else client.all_stats()
        if before or not stats:
            yield client.daemon(), sorted_by(key, [rates_of(before.get(each.id), each) for each in stats])
        before = {each.id: each for each in stats}
        time.sleep(interval_s)


def _once(daemon: DaemonStats, rates: Sequence[Rates], *, json: bool) -> int:
    if json:
        show_json(_document(daemon, rates))
        return 0
    sys.stdout.write(f"{header(daemon)}\n")
    show_table(COLUMNS, [row(each) for each in rates])
    return 0


def _drawn(samples: Iterator[Sample]) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
    for daemon, rates in samples:
        yield header(daemon), [row(each) for each in rates]


def _document(daemon: DaemonStats, rates: Sequence[Rates]) -> dict[str, object]:
    return {"daemon": daemon, "sandboxes": [each.document() for each in rates]}
