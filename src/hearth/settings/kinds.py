"""Kinds of values: how each is read from a word, taken from TOML and written again. Pure.

``read`` and ``take`` raise ValueError with what is wrong, in words that fit behind the value's name.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hearth.quota import NAMES, public_name
from hearth.rates import RATE_NAMES, PerMinute

SHOWN_CHARACTERS = 80
MAX_COUNT = 1_000_000_000
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)")
_UNIT_S = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_YES, _NO = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
LogLevel = Literal["debug", "info", "warning", "error"]
LEVELS: Mapping[str, LogLevel] = {
    **{"debug": "debug", "info": "info", "warning": "warning", "error": "error"},
    **{"trace": "debug", "warn": "warning", "critical": "error", "fatal": "error"},
}
"""As they are written, by us and by others."""
_LOGGER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


class Kind(ABC):
    """One kind of value. ``metavar`` stands for it in usage, ``unit`` tells in documents what numbers mean."""

    metavar: str = "VALUE"
    unit: str = ""
    is_many: bool = False
    """Whether a flag of it may be repeated; ``join`` then puts what the flags said together."""

    @abstractmethod
    def read(self, text: str) -> Any:
        """Read it from a flag's or a variable's text."""

    def take(self, value: Any) -> Any:
        """Take it from a file, as TOML gave it."""
        if not isinstance(value, str):
            raise ValueError(f"{shown(value)} is no text")
        return self.read(value)

    def write(self, value: Any) -> str:
        """Write it as TOML does."""
        return json.dumps(str(value), ensure_ascii=False)

    def merge(self, lower: Any, upper: Any) -> Any:
        """Give what holds where two sources speak; the upper one wins."""
        del lower
        return upper


@dataclass(frozen=True)
class Text(Kind):
    """Any words, at least one character."""

    metavar: str = "TEXT"

    def read(self, text: str) -> str:
        if not text or not text.isprintable():
            raise ValueError("it is empty or holds control characters")
        return text


@dataclass(frozen=True)
class Choice(Kind):
    """One of some words; ``spelled`` are other spellings that are taken for them."""

    values: tuple[str, ...]
    spelled: Mapping[str, str] = field(default_factory=dict)

    @property
    def metavar(self) -> str:  # type: ignore[override]
        return "{" + ",".join(self.values) + "}"

    def read(self, text: str) -> str:
        word = self.spelled.get(text.lower(), text.lower())
        if word not in self.values:
            raise ValueError(f"{shown(text)} is none of {', '.join(self.values)}")
        return word


@dataclass(frozen=True)
class YesNo(Kind):
    """True or false."""

    metavar: str = "true|false"

    def read(self, text: str) -> bool:
        word = text.lower()
        if word not in _YES + _NO:
            raise ValueError(f"{shown(text)} is neither true nor false")
        return word in _YES

    def take(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"{shown(value)} is neither true nor false")
        return value

    def write(self, value: Any) -> str:
        return "true" if value else "false"


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number within bounds."""

    low: int
    high: int
    unit: str = ""
    metavar: str = "N"

    def read(self, text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > len(str(self.high)) + 3:
            raise ValueError(f"{shown(text)} is not a number from {self.low} to {self.high}")
        return self.take(int(text))

    def take(self, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise ValueError(f"{shown(value)} is not a number from {self.low} to {self.high}")
        return value

    def write(self, value: Any) -> str:
        return str(value)


@dataclass(frozen=True)
class Duration(Kind):
    """A length of time above 0, in seconds; ``30``, ``90s``, ``15m``, ``2h``, ``7d``."""

    metavar: str = "TIME"
    unit: str = "s"

    def read(self, text: str) -> float:
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError(f"{shown(text)} is no length of time such as 90s, 15m, 2h or 7d")
        return self.take(float(match[1]) * _UNIT_S[match[2]])

    def take(self, value: Any) -> float:
        if isinstance(value, str):
            return self.read(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"{shown(value)} is not a length of time above 0, such as 90s, 15m, 2h or 7d")
        return float(value)

    def write(self, value: Any) -> str:
        for unit in ("d", "h", "m"):
            if value % _UNIT_S[unit] == 0:
                return f'"{value / _UNIT_S[unit]:g}{unit}"'
        return f'"{value:g}s"'


@dataclass(frozen=True)
class FilePath(Kind):
    """A path; in a file it is absolute or begins with ``~``, for a file has no working directory."""

    metavar: str = "FILE"

    def read(self, text: str) -> Path:
        if not text or "\0" in text:
            raise ValueError("it is no path")
        return Path(text).expanduser().absolute()

    def take(self, value: Any) -> Path:
        if not isinstance(value, str) or not value.startswith(("/", "~")):
            raise ValueError(f"{shown(value)} is no absolute path")
        return self.read(value)


@dataclass(frozen=True)
class Level(Kind):
    """``LEVEL``, or ``NAME=LEVEL`` for one logger: its name, empty for all, and the level."""

    metavar: str = "LEVEL"

    def read(self, text: str) -> tuple[str, LogLevel]:
        name, equals, word = text.rpartition("=")
        level = LEVELS.get(word.lower())
        if level is None or (equals and not _LOGGER.fullmatch(name)):
            levels = ", ".join(dict.fromkeys(LEVELS.values()))
            raise ValueError(
                f"{shown(text)} is none of {levels}, nor a logger with one of them, such as hearth.guest=debug"
            )
        return name, level

    def write(self, value: Any) -> str:
        name, level = value
        return json.dumps(f"{name}={level}" if name else level)


@dataclass(frozen=True)
class Many(Kind):
    """Several of a kind: a repeated flag, words with commas between in the environment, a list in a file."""

    each: Kind
    is_many: bool = True

    @property
    def metavar(self) -> str:  # type: ignore[override]
        return self.each.metavar

    @property
    def unit(self) -> str:  # type: ignore[override]
        return self.each.unit

    def read(self, text: str) -> tuple[Any, ...]:
        return tuple(self.each.read(word.strip()) for word in text.split(",") if word.strip())

    def take(self, value: Any) -> tuple[Any, ...]:
        return tuple(map(self.each.take, value if isinstance(value, list) else [value]))

    def write(self, value: Any) -> str:
        return "[" + ", ".join(map(self.each.write, value)) + "]"


@dataclass(frozen=True)
class Pairs(Kind):
    """Names with a value each, or ``none`` for no bound: ``NAME=VALUE``, a table in a file. Sources add up."""

    what: str
    names: Mapping[str, str]
    """As they are written → as the program calls them."""
    each: Kind
    is_many: bool = True

    @property
    def metavar(self) -> str:  # type: ignore[override]
        return f"NAME={self.each.metavar}"

    def read(self, text: str) -> dict[str, Any]:
        read: dict[str, Any] = {}
        for word in filter(None, (word.strip() for word in text.split(","))):
            name, equals, bound = word.partition("=")
            self._check(name)
            if not equals:
                raise ValueError(f"{shown(word)} is not of the form {self.metavar}")
            read[self.names[name]] = None if bound == "none" else self.each.read(bound)
        return read

    def take(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"{shown(value)} is no table of names and values")
        taken: dict[str, Any] = {}
        for name, bound in value.items():
            self._check(name)
            try:
                taken[self.names[name]] = None if bound == "none" else self.each.take(bound)
            except ValueError as error:
                raise ValueError(f"of {name}: {error}") from error
        return taken

    def write(self, value: Any) -> str:
        spelled = {ours: theirs for theirs, ours in self.names.items()}
        bounds = {spelled[name]: '"none"' if bound is None else self.each.write(bound) for name, bound in value.items()}
        inner = ", ".join(f"{name} = {bound}" for name, bound in bounds.items())
        return f"{{ {inner} }}" if inner else "{}"

    def merge(self, lower: Any, upper: Any) -> Any:
        return {**lower, **upper}

    def _check(self, name: str) -> None:
        if name not in self.names:
            raise ValueError(f"{shown(name)} is no {self.what}; use {', '.join(self.names)}")


@dataclass(frozen=True)
class Rate(Kind):
    """So many a minute and so many at once: ``30/10``."""

    metavar: str = "COUNT/BURST"
    unit: str = "requests a minute / at once"

    def read(self, text: str) -> PerMinute:
        count, _, burst = text.partition("/")
        bounds = (count, burst)
        if not all(each.isascii() and each.isdigit() and 0 < int(each[:12]) <= MAX_COUNT for each in bounds):
            raise ValueError(f"{shown(text)} is not of the form {self.metavar}, nor 'none'")
        return PerMinute(count=int(count), burst=int(burst))

    def write(self, value: Any) -> str:
        return f'"{value.count}/{value.burst}"'


QUOTAS = Pairs("quota", {public_name(name): name for name in NAMES}, Whole(0, 1 << 53))
RATES = Pairs("rate", {name: name for name in RATE_NAMES}, Rate())


def shown(value: Any) -> str:
    """Give a value for a message: short, and on one line."""
    return repr(value)[:SHOWN_CHARACTERS]


def joined(kind: Kind, said: Sequence[Any]) -> Any:
    """Put together what a repeated flag said, each as its ``read`` gave it."""
    if isinstance(kind, Pairs):
        return {name: bound for each in said for name, bound in each.items()}
    return tuple(value for each in said for value in each)
