"""What comes from outside, parsed once: JSON bodies and queries into the contract's schemas; errors name the field."""

from __future__ import annotations

import functools
from typing import Any, TypeVar, cast, get_args, get_origin
from urllib.parse import parse_qsl

import msgspec

from hearth.api.refusals import refusal
from hearth.errors import InvalidInput

Input = TypeVar("Input")


def check_content_type(value: str | None) -> None:
    """Accept JSON, or nothing said.

    Raises:
        InvalidInput: the caller says that it sends something else.
    """
    kind = (value or "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise InvalidInput(
            "the body is not JSON",
            details=f"Content-Type is {kind!r}",
            resolution="send JSON with 'Content-Type: application/json'",
            field="Content-Type",
        )


def read_body(schema: type[Input], body: bytes) -> Input:
    """Read a JSON body.

    Raises:
        InvalidInput: not JSON or not as the schema says; ``field`` is the path of the member at fault.
    """
    try:
        return msgspec.json.decode(body, type=schema)
    except msgspec.ValidationError as error:
        raise refusal(str(error), _plain(body), whole="body") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(
            "the body is not JSON",
            details=str(error) if body else "the body is empty",
            resolution="send one JSON object in UTF-8",
            field="body",
        ) from error


def read_query(schema: type[Input], query: bytes) -> Input:
    """Read a query string; a parameter that the schema holds as a list may come several times, others once.

    Raises:
        InvalidInput: a parameter is unknown, doubled or out of range; ``field`` names it.
    """
    lists = _lists_of(cast("type[msgspec.Struct]", schema))
    values: dict[str, Any] = {}
    for key, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if key in lists:
            values.setdefault(key, []).append(value)
        elif key in values:
            raise InvalidInput(f"invalid {key}", details=f"{key} is given twice", resolution="give it once", field=key)
        else:
            values[key] = value
    try:
        return msgspec.convert(values, schema, strict=False)
    except msgspec.ValidationError as error:
        raise refusal(str(error), values, whole="query") from error


@functools.cache
def _lists_of(schema: type[msgspec.Struct]) -> frozenset[str]:
    """Tell which parameters may come several times; found once, since msgspec reads annotations anew each time."""
    members = msgspec.structs.fields(schema)
    return frozenset(member.encode_name for member in members if get_origin(_bare(member.type)) is list)


def _plain(body: bytes) -> Any:
    """Give what a refused body holds, to tell which part of it was meant; None when not even that can be read."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
