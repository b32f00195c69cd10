"""`hearth audit`: who changed what, from where, and what came of it; yours, and for administrators everybody's."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

from hearth.api.audit_schemas import AuditView
from hearth.cli.arguments import add_json, read_duration
from hearth.cli.show import moment, show_json, show_table
from hearth.sdk.client import Client

COLUMNS = ("when", "who", "what", "object", "outcome", "from", "key", "request")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", metavar="TIME", default="24h", help="so long ago and later (default: 24h)")
    parser.add_argument("--user", metavar="USER", help="of this user alone, by id or name")
    parser.add_argument("--action", metavar="ACTION", help="of this kind alone, such as destroy_sandbox")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    since = datetime.now(UTC) - timedelta(seconds=read_duration(arguments.since, what="--since"))
    with Client() as client:
        entries = client.users.audit(since=since, user=arguments.user, action=arguments.action)
    if arguments.json:
        show_json(entries)
    else:
        show_table(COLUMNS, [_row(entry) for entry in entries])
    return 0


def _row(entry: AuditView) -> tuple[str, ...]:
    outcome = str(entry.status) if entry.code is None else f"{entry.status} {entry.code}"
    return (
        moment(entry.at),
        entry.user,
        entry.action,
        entry.object or "",
        outcome,
        entry.remote,
        entry.key or "certificate",
        entry.request_id,
    )
