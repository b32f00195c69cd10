"""`hearth quota`: how much you have and may have; administrators ask about others, and say how much they may."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import cast

from hearth.api.quota_schemas import Quota, UsageView
from hearth.cli.arguments import add_actions, add_json, read_pairs
from hearth.cli.show import show_json, show_table
from hearth.errors import InvalidInput
from hearth.sdk.client import Client
from hearth.sdk.quota_calls import QuotaOptions
from hearth.sdk.user_calls import MYSELF

COLUMNS = ("quota", "used", "limit")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    actions = add_actions(parser)
    text = "show how much a user has and may have (the default)"
    show = actions.add_parser("show", help=text, description=text)
    show.add_argument("user", nargs="?", default=MYSELF, help="id or name (default: you)")
    add_json(show, again=True)
    text = "say how much a user may have"
    change = actions.add_parser("set", help=text, description=text)
    change.add_argument("user", help="id or name")
    change.add_argument("quota", nargs="+", metavar="NAME=N", help="N is a number, 'none' for no limit, or 'default'")
    add_json(change, again=True)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        if arguments.action == "set":
            usage = client.users.set_quotas(arguments.user, **read_quotas(arguments.quota))
        else:
            usage = client.users.usage(getattr(arguments, "user", MYSELF))
    if arguments.json:
        show_json(usage)
    else:
        show_table(COLUMNS, list(_rows(usage)))
    return 0


def read_quotas(texts: list[str]) -> QuotaOptions:
    """Read ``NAME=N`` words.

    Raises:
        InvalidInput: one is of another form.
    """
    quotas: dict[str, object] = {}
    reset = []
    for name, limit in read_pairs(texts, what="quota").items():
        if limit == "default":
            reset.append(name)
        elif limit == "none":
            quotas[name] = None
        elif limit.isascii() and limit.isdigit():
            quotas[name] = int(limit)
        else:
            raise InvalidInput(
                f"invalid {name[:40]}",
                details=f"{limit[:20]!r} is no limit",
                resolution="give a number, 'none' or 'default'",
                field=name[:40],
            )
    if reset:
        quotas["reset"] = reset
    return cast("QuotaOptions", quotas)


def _rows(usage: UsageView) -> Iterator[tuple[str, str, str]]:
    for name in usage.__struct_fields__:
        quota = getattr(usage, name)
        if isinstance(quota, Quota):
            used = "without bound" if quota.used is None else str(quota.used)
            yield name, used, "none" if quota.limit is None else str(quota.limit)
