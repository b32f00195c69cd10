"""What msgspec says of an input that breaks the contract, in words for whoever sent it: which field, and what to do.

Server and SDK share it, so that a refusal reads the same whether or not the request travelled. Names are shown, values
of ``env`` and secrets never are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hearth.api import outfit_schemas, patterns, schemas
from hearth.errors import InvalidInput

MAX_SHOWN = 80
"""Characters of a refused name that are shown."""
MAX_REASON = 200
"""Characters of a sentence of msgspec's that we have no words for; it may quote what came."""

# Texts, not compiled: a command that is refused nothing should not wait for them.
_PLACE = r" - at (`key` in )?`\$\.?([^`]*)`$"
_MEMBER = r"(unknown|required) field `([^`]*)`"
_REGEX = r"^Expected `str` matching regex '(.*)'$"
_LENGTH = r"^Expected `(\w+)` of length (<=|>=) (\d+)$"
_BOUND = r"^Expected `\w+` (<=|>=) (\S+)$"
_KIND = r"^Expected `([^`]*)`, got `([^`]*)`$"

_KINDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "nothing",
}
_UNITS = {"str": "characters", "array": "entries", "object": "entries"}
_PATTERNS = {
    schemas.NAME: (
        "is not a DNS label",
        "use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit",
    ),
    schemas.NO_NUL: ("holds a NUL character", "leave it out: no program could be given it"),
    schemas.ONE_LINE: ("holds a control character", "use visible characters, in one line"),
    schemas.ENV_NAME: ("is no name of a variable", "use letters, digits and '_', not beginning with a digit"),
    schemas.LABEL_KEY: (
        "is no key of a label",
        "use letters, digits and inner '.', '_', '-' and '/', beginning and ending with a letter or digit",
    ),
    outfit_schemas.GUEST_PATH: ("is no path of a file", "give an absolute path that does not end with '/'"),
    outfit_schemas.FILE_MODE: ("is no mode", "write it in octal digits, such as 0755"),
    patterns.GUEST_FILE: ("is no absolute path", "begin it with '/'"),
    patterns.FILE_MODE_BITS: ("is no mode", "write it in octal digits, such as 0755"),
    patterns.MOUNT_PATH: ("is no place to mount at", "give an absolute path below '/'"),
    patterns.VOLUME_NAME: ("is no name of a volume", "use letters, digits and '+_.-', not beginning with '-'"),
    patterns.ASSIGNMENT: ("is not of the form NAME=VALUE", "write it as NAME=VALUE"),
    patterns.SIGNAL: ("is no name of a signal", "use a name such as TERM, INT or HUP, or a number from 1 to 64"),
    patterns.EVENT_KIND: ("is no kind of event", "use one such as sandbox.running, or sandbox for all of them"),
    schemas.LABEL_QUERY: ("is not of the form key=value", "write it as key=value"),
}
_PRIVATE = r"env\b|stdin\b|cmd\b|value\b|init\b|files\[\d+\]\.content\b"
"""Fields whose values stay out of answers and logs."""


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where an input breaks the contract: ``field`` is its path; ``key`` says that a key is at fault, not its value."""

    field: str
    key: bool
    value: Any


def refusal(text: str, given: Any, *, whole: str) -> InvalidInput:
    """Turn msgspec's sentence into the error to tell.

    Args:
        text: what msgspec's ValidationError says.
        given: the plain values that were refused.
        whole: what the input is as a whole, for a fault that is not in one field.
    """
    found = re.search(_PLACE, text)
    reason = re.sub(_PLACE, "", text)
    if member := re.search(_MEMBER, reason):
        path = f"{found[2]}.{member[2]}" if found and found[2] else member[2]
        return _of_member(path, member[1])
    place = _locate(found[2] if found else "", reason, given, key=bool(found and found[1]), whole=whole)
    details, resolution = _explain(place, reason)
    return InvalidInput(f"invalid {place.field}", details=details, resolution=resolution, field=place.field)


def _of_member(path: str, fault: str) -> InvalidInput:
    if fault == "unknown":
        details, resolution = f"{path} is not known here", "leave it out; /openapi.json tells what this call takes"
    else:
        details, resolution = f"{path} is missing", "add it; /openapi.json tells what this call takes"
    return InvalidInput(f"invalid {path}", details=details, resolution=resolution, field=path)


def _explain(place: _Place, reason: str) -> tuple[str, str]:
    """Give what is wrong there and what to do about it."""
    if (match := re.match(_REGEX, reason)) and (words := _PATTERNS.get(_unescaped(match[1]))):
        return f"{_shown(place)} {words[0]}", words[1]
    if match := re.match(_LENGTH, reason):
        unit = _UNITS.get(match[1], match[1])
        if match[2] == ">=":
            return f"{_shown(place, value=False)} is empty", f"give at least {match[3]} of its {unit}"
        return f"{_shown(place, value=False)} has more than {match[3]} {unit}", f"use at most {match[3]}"
    if match := re.match(_BOUND, reason):
        limit = f"{float(match[2]):g}" if "." in match[2] else match[2]
        return _shown(place), f"use {limit} or {'more' if match[1] == '>=' else 'less'}"
    if match := re.match(_KIND, reason):
        wanted = " or ".join(_KINDS.get(kind, kind) for kind in match[1].split(" | "))
        got = _KINDS.get(match[2], match[2])
        return f"{_shown(place, value=False)} is {got}", f"give {wanted}"
    return f"{place.field}: {reason[:MAX_REASON]}".replace("`", "'"), "see /openapi.json for what this call takes"


def _shown(place: _Place, *, value: bool = True) -> str:
    """Name the place, with what stands there where that is no secret."""
    if place.key:
        return f"{place.field}: the name {str(place.value)[:MAX_SHOWN]!r}"
    if not value or re.match(_PRIVATE, place.field):
        return place.field
    if isinstance(place.value, str):
        return f"{place.field} {place.value[:MAX_SHOWN]!r}"
    return f"{place.field} is {place.value}" if isinstance(place.value, int | float) else place.field


def _locate(path: str, reason: str, given: Any, *, key: bool, whole: str) -> _Place:
    """Find the value at msgspec's path; where that says only 'some entry' (``[...]``), the entry it means."""
    field, value = "", given
    for part in re.findall(r"[^.\[\]]+|\[\d+\]|\[\.\.\.\]", path):
        if part == "[...]":
            name, value = next(_offenders(value, reason, keys=False), ("?", None))
            field += f".{name[:MAX_SHOWN]}"
        elif part.startswith("["):
            value = dict(enumerate(value)).get(int(part[1:-1])) if isinstance(value, list | tuple) else None
            field += part
        else:
            value = value.get(part) if isinstance(value, Mapping) else None
            field += f".{part}" if field else part
    if key:
        value = next(_offenders(value, reason, keys=True), ("", None))[0]
    return _Place(field=field or whole, key=key, value=value)


def _offenders(container: Any, reason: str, *, keys: bool) -> Iterator[tuple[str, Any]]:
    """Give the entries of an object of which msgspec's sentence is true."""
    if isinstance(container, Mapping):
        for name, value in container.items():
            if _offends(name if keys else value, reason):
                yield str(name), value


def _offends(value: Any, reason: str) -> bool:
    if not isinstance(value, str):
        return re.match(_KIND, reason) is not None
    if match := re.match(_REGEX, reason):
        return re.search(_unescaped(match[1]), value) is None
    if match := re.match(_LENGTH, reason):
        return len(value) > int(match[3]) if match[2] == "<=" else len(value) < int(match[3])
    return False


def _unescaped(pattern: str) -> str:
    """Give a pattern as it was written: msgspec shows its repr."""
    return pattern.replace("\\\\", "\\")
