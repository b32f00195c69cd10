"""JSON ↔ records, from their annotations alone. Knows no message; what it reads is never trusted.

A field that is absent or ``null`` takes its default; an unknown field is ignored; a wrong type is an error that names
the field. Deep, huge or malformed JSON never gets past ``decode``, nor does a NUL character, which no path, argument
or variable of Linux can hold. Text that is not Unicode (a file name of arbitrary bytes) travels as lone surrogates, the
way ``os.fsdecode`` spells it, in pure ASCII on the wire.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from types import GenericAlias, UnionType

from hearth.wire import record
from hearth.wire.frames import ProtocolError
from hearth.wire.record import MISSING, Bounds, R, Record
from hearth.wire.runtime_typing import Any, NamedTuple, NoReturn

_Reader = Callable[[Any], Any]
_Writer = Callable[[Any], Any]

_SHOWN_KEY_LENGTH = 40


class BadMessage(ProtocolError):
    """A JSON body is not what its frame type promises; the text names the field."""


_INT64 = Bounds(low=-(2**63), high=2**63 - 1)


class _Mismatch(Exception):
    """A value does not fit; the path to it grows outwards while this passes, so that good input pays nothing for it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = ""

    def inside(self, step: str) -> None:
        self.path = step + self.path


class _Field(NamedTuple):
    name: str
    default: Any
    required: bool
    read: _Reader
    write: _Writer | None


_schemas: dict[type[Record], tuple[_Field, ...]] = {}


def encode(message: Record) -> bytes:
    """Give the compact JSON of a message; fields at None or at their default are left out.

    Raises:
        BadMessage: a number that JSON cannot say (NaN, infinity).
    """
    return _dump(_plain(message))


def encode_list(messages: Sequence[Record]) -> bytes:
    """Give the compact JSON array of messages.

    Raises:
        BadMessage: as for ``encode``.
    """
    return _dump([_plain(message) for message in messages])


def decode(cls: type[R], payload: bytes) -> R:
    """Read a JSON object as ``cls``.

    Raises:
        BadMessage: not JSON, not an object, or a field is missing or of the wrong type.
    """
    value = _load(payload)
    try:
        return _build(cls, value)
    except _Mismatch as error:
        raise BadMessage(f"{cls.__name__}{error.path}: {error.reason}") from None


def decode_list(cls: type[R], payload: bytes) -> list[R]:
    """Read a JSON array of objects as a list of ``cls``.

    Raises:
        BadMessage: as for ``decode``.
    """
    value = _load(payload)
    try:
        return _read_list(lambda item: _build(cls, item), value)
    except _Mismatch as error:
        raise BadMessage(f"{cls.__name__}{error.path}: {error.reason}") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_encoder = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def _load(payload: bytes) -> Any:
    try:
        return _decoder.decode(payload.decode())
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"malformed JSON: {error}") from error


def _dump(value: Any) -> bytes:
    try:
        return _encoder.encode(value).encode()
    except ValueError as error:
        raise BadMessage(str(error)) from error


def _plain(message: Record) -> dict[str, Any]:
    result = {}
    for name, default, _, _, write in _schema(type(message)):
        item = getattr(message, name)
        if item is not None and item != default:
            result[name] = item if write is None else write(item)
    return result


def _schema(cls: type[Record]) -> tuple[_Field, ...]:
    found = _schemas.get(cls)
    if found is None:
        found = _schemas[cls] = tuple(_field(field) for field in record.fields(cls))
    return found


def _field(field: record.Field) -> _Field:
    default = field.default if field.default_factory is MISSING else field.default_factory()
    # The text is our own source's; typing.get_type_hints does the same and more, at ten times the price.
    hint = eval(field.annotation, vars(sys.modules[field.owner.__module__]))  # noqa: S307
    return _Field(field.name, default, field.is_required, _reader(hint, field.bounds or _INT64), _writer(hint))


def _build(cls: type[R], value: Any) -> R:
    if type(value) is not dict:
        raise _Mismatch("expected an object")
    arguments = {}
    for name, _, required, read, _ in _schema(cls):
        item = value.get(name)
        if item is None:
            if required:
                raise _Mismatch(f"field '{name}' is missing")
            continue
        try:
            arguments[name] = read(item)
        except _Mismatch as error:
            error.inside(f".{name}")
            raise
    return cls(**arguments)


def _reader(hint: Any, bounds: Bounds) -> _Reader:
    """Give the function that checks a JSON value against a type."""
    if isinstance(hint, UnionType):  # X | None, whose None was handled as absent
        return _reader(hint.__args__[0], bounds)
    if isinstance(hint, GenericAlias):
        read_item = _reader(hint.__args__[-1], bounds)
        read_all = _read_list if hint.__origin__ is list else _read_dict
        return lambda value: read_all(read_item, value)
    if hint is int:
        return lambda value: _read_int(bounds, value)
    if issubclass(hint, Record):
        return lambda value: _build(hint, value)
    return _SCALARS[hint]


def _writer(hint: Any) -> _Writer | None:
    """Give the function that makes a field's value plain, None where it is so already."""
    if isinstance(hint, UnionType):
        return _writer(hint.__args__[0])
    if isinstance(hint, GenericAlias):
        write_item = _writer(hint.__args__[-1])
        if write_item is None or hint.__origin__ is list:
            return write_item and (lambda value: [write_item(item) for item in value])
        return lambda value: {key: write_item(item) for key, item in value.items()}
    return _plain if issubclass(hint, Record) else None


def _read_list(read_item: _Reader, value: Any) -> list[Any]:
    if type(value) is not list:
        raise _Mismatch("expected an array")
    result: list[Any] = []
    try:
        for item in value:
            result.append(read_item(item))  # len(result) is the index at fault
    except _Mismatch as error:
        error.inside(f"[{len(result)}]")
        raise
    return result


def _read_dict(read_value: _Reader, value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise _Mismatch("expected an object")
    result = {}
    for key, item in value.items():
        try:
            result[_read_str(key)] = read_value(item)
        except _Mismatch as error:
            error.inside(f"[{key[:_SHOWN_KEY_LENGTH]!r}]")
            raise
    return result


def _read_str(value: Any) -> str:
    if type(value) is not str:
        raise _Mismatch("expected str")
    if "\0" in value:
        raise _Mismatch("contains a NUL character")
    return value


def _read_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise _Mismatch("expected bool")
    return value


def _read_float(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        return float(_read_int(_INT64, value))
    raise _Mismatch("expected float")


def _read_int(bounds: Bounds, value: Any) -> int:
    if type(value) is not int:
        raise _Mismatch("expected int")
    if not bounds.low <= value <= bounds.high:
        raise _Mismatch(f"outside {bounds.low}..{bounds.high}")
    return value


_SCALARS: dict[Any, _Reader] = {str: _read_str, bool: _read_bool, float: _read_float}
