"""JSON ↔ records, from their annotations alone. Knows no message; what it reads is never trusted.

A field that is absent or ``null`` takes its default; an unknown field is ignored; a wrong type is an error that names
the field. Deep, huge or malformed JSON never gets past ``decode``, nor does a NUL character, which no path, argument
or variable of Linux can hold. Text that is not Unicode (a file name of arbitrary bytes) travels as lone surrogates, the
way ``os.fsdecode`` spells it, in pure ASCII on the wire; a surrogate that no byte is spelled as is refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence

from hearth.wire import record
from hearth.wire.frames import ProtocolError
from hearth.wire.record import MISSING, Bounds, R, Record
from hearth.wire.runtime_typing import Any, NamedTuple, NoReturn

_Reader = Callable[[Any], Any]
_Writer = Callable[[Any], Any]

_LIST = "list["
_DICT = "dict[str, "
_SHOWN_KEY_LENGTH = 40
_MAX_FLOAT = sys.float_info.max


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
    # Read, not evaluated: nothing else in the guest runs Python's compiler, whose first run is slow there.
    kind = field.annotation.removesuffix(" | None")  # whose None is handled as absent
    classes = vars(sys.modules[field.owner.__module__])
    read = _reader(kind, field.bounds or _INT64, classes)
    return _Field(field.name, default, field.is_required, read, _writer(kind))


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


def _reader(kind: str, bounds: Bounds, classes: dict[str, Any]) -> _Reader:
    """Give the function that checks a JSON value against a type: a scalar, a record, or a list or dict of such."""
    if kind.startswith(_LIST):
        read_item = _reader(kind[len(_LIST) : -1], bounds, classes)
        return lambda value: _read_list(read_item, value)
    if kind.startswith(_DICT):
        read_value = _reader(kind[len(_DICT) : -1], bounds, classes)
        return lambda value: _read_dict(read_value, value)
    if kind == "int":
        return lambda value: _read_int(bounds, value)
    if kind in _SCALARS:
        return _SCALARS[kind]
    cls: type[Record] = classes[kind]
    return lambda value: _build(cls, value)


def _writer(kind: str) -> _Writer | None:
    """Give the function that makes a field's value plain, None where it is so already."""
    if kind.startswith(_LIST):
        write_item = _writer(kind[len(_LIST) : -1])
        return write_item and (lambda value: [write_item(item) for item in value])
    if kind.startswith(_DICT):
        write_value = _writer(kind[len(_DICT) : -1])
        return write_value and (lambda value: {key: write_value(item) for key, item in value.items()})
    return None if kind == "int" or kind in _SCALARS else _plain


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
    if not value.isascii():
        try:
            value.encode(errors="surrogateescape")
        except UnicodeEncodeError:
            raise _Mismatch("contains a surrogate that stands for no byte") from None
    return value


def _read_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise _Mismatch("expected bool")
    return value


def _read_float(value: Any) -> float:
    if type(value) is float:
        if not -_MAX_FLOAT <= value <= _MAX_FLOAT:
            raise _Mismatch("not a finite number")
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


_SCALARS: dict[str, _Reader] = {"str": _read_str, "bool": _read_bool, "float": _read_float}
