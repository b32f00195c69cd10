"""What `serve` takes about how much users may have and ask."""

from __future__ import annotations

import argparse
from pathlib import Path

from hearth.config import Settings
from hearth.quota import DEFAULT_QUOTAS, NAMES, Quotas, public_name
from hearth.rates import DEFAULT_RATES, RATE_NAMES, ApiRates, PerMinute

MAX_RATE = 1_000_000_000
MAX_DAYS = 36_500
_QUOTAS = {public_name(name): name for name in NAMES}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of limits."""
    parser.add_argument(
        "--master-key", metavar="FILE", type=Path, help="what secrets are sealed with (default: master.key in the data)"
    )
    parser.add_argument(
        "--audit-days",
        metavar="N",
        type=days,
        help=f"keep the audit log for N days (default: {Settings.audit_days})",
    )
    group = parser.add_argument_group("limits of users")
    group.add_argument(
        "--rate",
        metavar="NAME=COUNT/BURST",
        action="append",
        type=rate,
        default=[],
        help=f"so many requests a minute and at once over the network, or 'none'; NAME: {', '.join(RATE_NAMES)}",
    )
    group.add_argument(
        "--quota",
        metavar="NAME=N",
        action="append",
        type=quota,
        default=[],
        help=f"a user may have N of this, or 'none' for no limit; repeatable; NAME is one of {', '.join(_QUOTAS)}",
    )


def rate(text: str) -> tuple[str, PerMinute | None]:
    """Read ``NAME=COUNT/BURST``; argparse tells what a ValueError means."""
    name, _, bound = text.partition("=")
    if name not in RATE_NAMES:
        raise argparse.ArgumentTypeError(f"{name!r} is no rate; use {', '.join(RATE_NAMES)}")
    if bound == "none":
        return name, None
    count, _, burst = bound.partition("/")
    if not all(each.isascii() and each.isdigit() and 0 < int(each) <= MAX_RATE for each in (count, burst)):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=COUNT/BURST")
    return name, PerMinute(count=int(count), burst=int(burst))


def rates_of(arguments: argparse.Namespace) -> ApiRates:
    """Give the rates that were asked for; the others keep their defaults."""
    return DEFAULT_RATES.but(dict(arguments.rate))


def quota(text: str) -> tuple[str, int | None]:
    """Read ``NAME=N``; argparse tells what a ValueError means."""
    name, _, limit = text.partition("=")
    if name not in _QUOTAS:
        raise argparse.ArgumentTypeError(f"{name!r} is no quota; use {', '.join(_QUOTAS)}")
    if limit == "none":
        return _QUOTAS[name], None
    if not limit.isascii() or not limit.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=N")
    return _QUOTAS[name], int(limit)


def days(text: str) -> int:
    """Read a number of days; argparse tells what a ValueError means."""
    value = int(text)
    if not 1 <= value <= MAX_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MAX_DAYS}")
    return value


def quotas_of(arguments: argparse.Namespace) -> Quotas:
    """Give the quotas that were asked for; the others keep their defaults."""
    return DEFAULT_QUOTAS.but(dict(arguments.quota))
