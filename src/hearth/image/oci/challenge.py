"""``WWW-Authenticate`` (RFC 9110, 11.6.1) as registries send it: how they want to know who asks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_HEADER = 8192
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SCHEME = re.compile(rf"\s*({_WORD})(?:\s+|\s*(?:,|$))")
_PARAMETER = re.compile(rf'\s*({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_WORD}))\s*(,|$)')
_SEPARATOR = re.compile(r"[\s,]+")


@dataclass(frozen=True, kw_only=True)
class Challenge:
    """One way to authenticate; scheme and names of parameters in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(header: str) -> Sequence[Challenge]:
    """Read all challenges of a header; what cannot be read ends the list."""
    header = header[:MAX_HEADER]
    found: list[Challenge] = []
    at = 0
    while at < len(header):
        if (blank := _SEPARATOR.match(header, at)) is not None:
            at = blank.end()
            continue
        scheme = _SCHEME.match(header, at)
        if scheme is None:
            break
        at = scheme.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(header, at)) is not None:
            quoted, plain = parameter[2], parameter[3]
            parameters[parameter[1].lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
            at = parameter.end()
        found.append(Challenge(scheme=scheme[1].lower(), parameters=parameters))
    return found
