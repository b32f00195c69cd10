"""`hearth egress`: what a sandbox tried to reach, what refused it, and the shortest list for what an audit saw."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable

from hearth.api.net_schemas import EgressAttempt, EgressView
from hearth.cli.arguments import add_json
from hearth.cli.net import options_for, words_for
from hearth.cli.show import age, moment, show_json, show_table
from hearth.sdk.client import Client

COLUMNS = ("last", "verdict", "rule", "host", "address", "port", "times")
POLL_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", help="id or name")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--allow-list", action="store_true", help="print the options for what was seen under --audit")
    form.add_argument("--follow", action="store_true", help="print each attempt as it comes, until Ctrl-C")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        if arguments.follow:
            follow(client, arguments.sandbox)
        seen = client.egress(arguments.sandbox)
    if arguments.allow_list:
        show_allow_list(seen, json=arguments.json)
    elif arguments.json:
        show_json(seen)
    else:
        print(f"policy: {words_for(seen.policy)}")
        show_table(COLUMNS, [row_of(attempt, age(attempt.last_at)) for attempt in seen.attempts])
        if seen.forgotten:
            print(f"{seen.forgotten} older attempts are forgotten")
    return 0


def show_allow_list(seen: EgressView, *, json: bool) -> None:
    """Print the shortest list, as options for ``hearth edit`` or as a policy."""
    if json:
        show_json(seen.allow_list)
    else:
        print(options_for(seen.allow_list))


def follow(client: Client, ref: str) -> None:
    """Print attempts as they come; ends with the sandbox, or by Ctrl-C."""
    counts: dict[tuple[object, ...], int] = {}
    while True:
        for attempt in news(client.egress(ref).attempts, counts):
            print("  ".join(row_of(attempt, moment(attempt.last_at))), flush=True)
        time.sleep(POLL_S)


def news(attempts: Iterable[EgressAttempt], counts: dict[tuple[object, ...], int]) -> list[EgressAttempt]:
    """Give the attempts that were made again since the last call; ``counts`` remembers."""
    found = []
    for each in attempts:
        key = (each.kind, each.rule, each.host, each.address, each.protocol, each.port, each.first_at)
        if counts.get(key) != each.count:
            counts[key] = each.count
            found.append(each)
    return found


def row_of(attempt: EgressAttempt, when: str) -> tuple[str, ...]:
    """Give the cells of one attempt."""
    verdict = "let through" if attempt.kind == "seen" else "refused"
    port = f"{attempt.port}/{attempt.protocol}" if attempt.port else attempt.protocol
    return (when, verdict, attempt.rule, attempt.host or "-", attempt.address or "-", port, str(attempt.count))
