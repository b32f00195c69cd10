"""Options about what a sandbox may reach, shared by ``create`` and ``edit``."""

from __future__ import annotations

import argparse
import re

from hearth.api.net_schemas import NetPolicyView
from hearth.errors import InvalidInput

_CIDR = re.compile(r"[0-9.]+(/[0-9]+)?")
_RATE = re.compile(r"([0-9]{1,12})([kKMG]?)")
_UNITS = {"": 1, "k": 1000, "K": 1000, "M": 1000**2, "G": 1000**3}


def add_net(parser: argparse.ArgumentParser) -> None:
    """Declare what a sandbox may reach; what is not said stays, or is as the daemon was told."""
    group = parser.add_argument_group("network")
    group.add_argument("--net", choices=("deny", "public"), help="what it reaches of the world: nothing, or all of it")
    group.add_argument(
        "--allow",
        metavar="HOST|CIDR",
        action="append",
        help="lets it reach api.example.com, *.example.com or 192.0.2.0/24, too; repeatable, and all there are",
    )
    group.add_argument("--no-allow", action="store_true", help="take away everything that was allowed")
    group.add_argument(
        "--neighbours", action=argparse.BooleanOptionalAction, help="whether it and its owner's others reach each other"
    )
    group.add_argument(
        "--audit",
        action=argparse.BooleanOptionalAction,
        help="let through what would be refused of the world, for 'hearth egress' to tell",
    )
    group.add_argument("--upload", metavar="RATE", help="bound in bytes a second: 500k, 2M; 'none' takes it away")
    group.add_argument("--download", metavar="RATE", help="bound in bytes a second: 500k, 2M; 'none' takes it away")


def policy_of(arguments: argparse.Namespace) -> dict[str, object] | None:
    """Give what was asked for; None when nothing was.

    Raises:
        InvalidInput: an option cannot be read.
    """
    said: dict[str, object] = {}
    if arguments.net is not None:
        said["default"] = arguments.net
    if arguments.allow and arguments.no_allow:
        raise InvalidInput("--allow and --no-allow exclude each other", field="--allow")
    if arguments.allow or arguments.no_allow:
        entries: list[str] = arguments.allow or []
        said["allow_cidrs"] = [each for each in entries if _CIDR.fullmatch(each)]
        said["allow_hosts"] = [each for each in entries if not _CIDR.fullmatch(each)]
    for name in ("neighbours", "audit"):
        if (value := getattr(arguments, name)) is not None:
            said[name] = value
    for name in ("upload", "download"):
        if (value := getattr(arguments, name)) is not None:
            said[f"{name}_bytes_per_s"] = read_rate(value, what=f"--{name}")
    return said or None


def read_rate(text: str, *, what: str) -> int | None:
    """Read ``800000``, ``500k``, ``2M`` or ``none``, in bytes a second.

    Raises:
        InvalidInput: it is of another form.
    """
    if text == "none":
        return None
    match = _RATE.fullmatch(text)
    if match is None:
        raise InvalidInput(
            f"invalid {what}",
            details=f"{text[:20]!r} is no rate",
            resolution="write it as 800000, 500k or 2M bytes a second, or none",
            field=what,
        )
    return int(match[1]) * _UNITS[match[2]]


def options_for(policy: NetPolicyView) -> str:
    """Give the options that ask for a policy's default and lists."""
    allowed = [f"--allow {each}" for each in (*policy.allow_hosts, *policy.allow_cidrs)]
    return " ".join([f"--net {policy.default}", *(allowed or ["--no-allow"])])


def words_for(policy: NetPolicyView) -> str:
    """Say a policy in a line."""
    words = ["the public world" if policy.default == "public" else "nothing of the world"]
    if allowed := [*policy.allow_hosts, *policy.allow_cidrs]:
        shown = ", ".join(allowed[:5]) + (f" and {len(allowed) - 5} more" if len(allowed) > 5 else "")
        words = [f"{words[0]} but {shown}" if policy.default == "deny" else f"{words[0]} and {shown}"]
    if not policy.neighbours:
        words.append("no neighbours")
    if policy.audit:
        words.append("audited: all of the world is let through")
    for name, rate in (("upload", policy.upload_bytes_per_s), ("download", policy.download_bytes_per_s)):
        if rate is not None:
            words.append(f"{name} {rate} B/s")
    return "; ".join(words)
