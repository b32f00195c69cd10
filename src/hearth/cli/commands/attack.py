"""`hearth attack`: a prober inside a guest tries everything against its own installation; a table says what held."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import re
import sys
from pathlib import Path

from hearth.attack.model import Report, Row
from hearth.attack.plan import GROUPS
from hearth.attack.run import Attack, Options, clients
from hearth.cli.arguments import add_json
from hearth.cli.consent import add_yes, agreed
from hearth.cli.exits import FAILED
from hearth.cli.show import show_json, show_table
from hearth.errors import InvalidInput

COLUMNS = ("probe", "target", "tried", "outcome", "verdict", "proof")
SHORTEST_S, LONGEST_S = 30, 3600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", help="id or name of a running sandbox whose image has python3")
    parser.add_argument(
        "--no-neighbours", action="store_true", help="create no throw-away sandboxes; much is not tried then"
    )
    parser.add_argument(
        "--other-key", metavar="FILE", type=Path, help="file with an API key of another owner, to attack one of theirs"
    )
    parser.add_argument(
        "--also",
        metavar="ADDRESS:PORT",
        action="append",
        default=[],
        help="try this too; it must not be reached; repeatable",
    )
    parser.add_argument(
        "--only",
        metavar="GROUP",
        action="append",
        default=[],
        choices=GROUPS,
        help=f"try this group and what proves it; repeatable: {', '.join(GROUPS)}",
    )
    parser.add_argument("--time-limit", metavar="SECONDS", type=int, default=300, help="for each prober (default: 300)")
    add_yes(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    options = options_of(arguments)
    key = _read_key(arguments.other_key)
    loss = f"programs run as root in {options.sandbox}, and throw-away sandboxes are made"
    if not agreed(arguments, f"Attack from within {options.sandbox}, as root", deed="attacking", loss=loss):
        return FAILED
    report = asyncio.run(_attack(options, key))
    if arguments.json:
        show_json(as_json(report))
    else:
        show(report)
    return 0 if report.has_held else FAILED


def options_of(arguments: argparse.Namespace) -> Options:
    """Read what was chosen.

    Raises:
        InvalidInput: an address or the time limit cannot be.
    """
    if not SHORTEST_S <= arguments.time_limit <= LONGEST_S:
        raise InvalidInput(
            "invalid --time-limit",
            details=f"{arguments.time_limit} s",
            resolution=f"use {SHORTEST_S} to {LONGEST_S}",
            field="--time-limit",
        )
    return Options(
        sandbox=arguments.sandbox,
        neighbours=not arguments.no_neighbours,
        groups=tuple(arguments.only),
        seconds=arguments.time_limit,
        also=tuple(map(read_target, arguments.also)),
    )


def read_target(text: str) -> tuple[str, int]:
    """Read ``192.0.2.1:22``.

    Raises:
        InvalidInput: it is of another form.
    """
    match = re.fullmatch(r"([0-9.]{7,15}):([0-9]{1,5})", text)
    try:
        if match is not None and 0 < int(match[2]) < 65_536:
            return str(ipaddress.IPv4Address(match[1])), int(match[2])
    except ipaddress.AddressValueError:
        pass
    raise InvalidInput(
        "invalid --also",
        details=f"{text[:40]!r} is no IPv4 address with a port",
        resolution="write it as 192.0.2.1:22",
        field="--also",
    )


def show(report: Report) -> None:
    """Print the table and what it comes to."""
    show_table(COLUMNS, [_cells(row) for row in report.rows])
    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts.items())
    print(f"{len(report.rows)} probes from {report.sandbox} (policy {report.policy}): {counts}")
    print(f"observed on the host: {report.observed}")


def as_json(report: Report) -> dict[str, object]:
    """Give the report as one document."""
    rows = [
        {**{name: getattr(row, name) for name in ("id", *COLUMNS)}, "verdict": row.verdict.value} for row in report.rows
    ]
    return {
        "sandbox": report.sandbox,
        "policy": report.policy,
        "observed": report.observed,
        "held": report.has_held,
        "counts": report.counts,
        "probes": rows,
    }


def _cells(row: Row) -> tuple[str, ...]:
    return (row.probe, row.target, row.tried, row.outcome, row.verdict.value, row.proof)


async def _attack(options: Options, key: str | None) -> Report:
    async with clients(None, key) as (client, other):
        return await Attack(client=client, other=other, options=options, tell=_tell).carry_out()


def _tell(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def _read_key(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        key = path.read_text().strip()
    except OSError as error:
        raise InvalidInput(
            "the other owner's key cannot be read",
            details=f"{path}: {error.strerror}",
            resolution="name a file with one API key in it",
            field="--other-key",
        ) from error
    if not key:
        raise InvalidInput("the other owner's key is empty", details=str(path), field="--other-key")
    return key
