"""Frozen values with named fields: what ``dataclasses`` gives, without generating and compiling code at every start.

The guest has to import its messages before it can be of use. Type checkers see an ordinary frozen, keyword-only data
class. A field at a plain default is not stored in the instance; the class holds it.
"""

from __future__ import annotations

from hearth.wire.runtime_typing import Any, TypeVar, dataclass_transform

R = TypeVar("R", bound="Record")
MISSING = object()
"""The default of a field that has none."""


class Bounds:
    """The inclusive range of an integer field, given as ``field(bounds=...)``."""

    __slots__ = ("high", "low")

    def __init__(self, *, low: int, high: int) -> None:
        self.low = low
        self.high = high


class Field:
    """What a record knows of one field. ``annotation`` is the source text of its type, ``owner`` the class it is in."""

    __slots__ = ("annotation", "bounds", "default", "default_factory", "is_shown", "name", "owner")

    def __init__(self, *, default: Any, default_factory: Any, is_shown: bool, bounds: Bounds | None) -> None:
        self.name = self.annotation = ""
        self.owner: type[Record] = Record
        self.default = default
        self.default_factory = default_factory
        self.is_shown = is_shown
        self.bounds = bounds

    @property
    def is_required(self) -> bool:
        """True when a value must be given."""
        return self.default is self.default_factory is MISSING


def field(*, default: Any = MISSING, default_factory: Any = MISSING, repr: bool = True, bounds: Any = None) -> Any:
    """Say more of a field than its default: a function that makes the default, whether ``repr`` shows it, its range."""
    return Field(default=default, default_factory=default_factory, is_shown=repr, bounds=bounds)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
class Record:
    """The base class: the annotations of a subclass, after those it inherits, are its fields."""

    _fields: dict[str, Field] = {}  # noqa: RUF012 -- replaced in every subclass, never changed
    _names: frozenset[str] = frozenset()
    _required: frozenset[str] = frozenset()
    _factories: tuple[tuple[str, Any], ...] = ()

    def __init_subclass__(cls) -> None:
        own = {name: _own_field(cls, name, text) for name, text in vars(cls).get("__annotations__", {}).items()}
        cls._fields = {**cls._fields, **own}
        cls._names = frozenset(cls._fields)
        cls._required = frozenset(name for name, found in cls._fields.items() if found.is_required)
        cls._factories = tuple(
            (name, found.default_factory) for name, found in cls._fields.items() if found.default_factory is not MISSING
        )

    def __init__(self, **values: Any) -> None:
        if not self._required <= values.keys() <= self._names:
            wrong = sorted(self._required - values.keys()) + sorted(values.keys() - self._names)
            raise TypeError(f"{type(self).__name__}: missing or unknown: {', '.join(wrong)}")
        for name, make in self._factories:
            if name not in values:
                values[name] = make()
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be removed")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._fields)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self._fields))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name, found in self._fields.items() if found.is_shown)
        return f"{type(self).__qualname__}({shown})"


def fields(cls: type[Record]) -> tuple[Field, ...]:
    """Give the fields of a record class, in their order."""
    return tuple(cls._fields.values())


def _own_field(cls: type[Record], name: str, annotation: str) -> Field:
    default = vars(cls).get(name, MISSING)
    if not isinstance(default, Field):
        found = Field(default=default, default_factory=MISSING, is_shown=True, bounds=None)
    else:
        found = default
        if found.default is MISSING:
            delattr(cls, name)
        else:
            setattr(cls, name, found.default)
    found.name, found.annotation, found.owner = name, annotation, cls
    return found
