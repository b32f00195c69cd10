"""What all operations of the OpenAPI document share: headers, parameters, the ways to say who asks."""

from __future__ import annotations

import re
from typing import Any

from hearth.api.limits import (
    FILE_IS_DIR_HEADER,
    FILE_MODE_HEADER,
    FILE_SIZE_HEADER,
    IDEMPOTENCY_HEADER,
    PREFIX,
    REPLAYED_HEADER,
    REQUEST_ID_HEADER,
)

_PARAMETERS = re.compile(r"{(\w+)}")
_REQUEST_ID = r"^[A-Za-z0-9._:/+=@-]{1,128}$"
_HEADER = "#/components/headers/{name}"

HEADERS: dict[str, Any] = {
    REQUEST_ID_HEADER: {
        "description": "The request's id: the caller's own where it brought one, under which the daemon's log tells.",
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds until it may be asked again.", "schema": {"type": "integer", "minimum": 1}},
    "Retry-After-Ms": {
        "description": "The same in milliseconds, for those who need not wait a whole second.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "WWW-Authenticate": {"description": "How to say who asks.", "schema": {"type": "string"}},
    REPLAYED_HEADER: {
        "description": "Given where this is the answer of an earlier request with the same Idempotency-Key.",
        "schema": {"type": "string", "const": "true"},
    },
    FILE_SIZE_HEADER: {
        "description": "Bytes of the whole file.",
        "schema": {"type": "integer", "minimum": 0},
    },
    FILE_MODE_HEADER: {"description": "4 octal digits.", "schema": {"type": "string", "pattern": "^[0-7]{4}$"}},
    FILE_IS_DIR_HEADER: {"description": "Whether it is a directory.", "schema": {"enum": ["true", "false"]}},
}
BYTES_SCHEMA: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
RANGE_PARAMETER: dict[str, Any] = {
    "name": "Range",
    "in": "header",
    "description": "One range of bytes, `bytes=0-99`, `bytes=100-` or `bytes=-100`; others are ignored.",
    "schema": {"type": "string"},
}
TOKEN_PARAMETER: dict[str, Any] = {
    "name": "token",
    "in": "query",
    "description": "The API key, for clients that can set no header; a first message `auth` keeps it out of addresses.",
    "schema": {"type": "string"},
}
REQUEST_ID_PARAMETER: dict[str, Any] = {
    "name": REQUEST_ID_HEADER,
    "in": "header",
    "description": "An id of the caller's own; one that is not of this form is replaced.",
    "schema": {"type": "string", "pattern": _REQUEST_ID},
}
IDEMPOTENCY_PARAMETER: dict[str, Any] = {
    "name": IDEMPOTENCY_HEADER,
    "in": "header",
    "description": "A repetition with the same key and the same body within 24 hours gets the answer of the first, and "
    "creates nothing; with another body it is a conflict.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "example": "0f8fad5b-d9cb-469f-a165-70867728950e",
}
PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "ref": {"description": "An id or a name.", "schema": {"type": "string"}},
    "volume": {"description": "The id or name of a volume.", "schema": {"type": "string"}},
    "session": {"description": "The id of a session.", "schema": {"type": "string"}},
    "key": {"description": "A key, by id or by the name it was given.", "schema": {"type": "string"}},
    "port": {"description": "A TCP port.", "schema": {"type": "integer", "minimum": 1, "maximum": 65_535}},
}
SECURITY_SCHEMES: dict[str, Any] = {
    "token": {"type": "http", "scheme": "bearer", "description": "An API key: `hk_` and 64 hexadecimal digits."},
    "signature": {
        "type": "http",
        "scheme": "HMAC",
        "description": "`Authorization: HMAC <key id>:<hex of HMAC-SHA256>` over method, path, timestamp and the "
        "body's SHA-256, each on a line, with `X-Timestamp`; for keys of kind hmac.",
    },
    "certificate": {"type": "mutualTLS", "description": "A client certificate, where the daemon is told a CA."},
}
SECURITY: list[dict[str, list[str]]] = [{name: []} for name in SECURITY_SCHEMES]
_TAGS = {"status": "jobs", "cancel": "jobs", "publications": "ports"}
"""Where the first word of a path is not the resource."""


def parameter_names(path: str) -> list[str]:
    """Give the names of a path's parameters."""
    return _PARAMETERS.findall(path)


def tag_of(path: str) -> str:
    """Give the resource a path belongs to."""
    if not path.startswith(f"{PREFIX}/"):
        return "daemon"
    word = path.removeprefix(f"{PREFIX}/").partition("/")[0]
    return _TAGS.get(word, word)


def header_names(status: int, *, creates: bool = False) -> dict[str, Any]:
    """Give the headers that answers of a status have."""
    names = [REQUEST_ID_HEADER]
    if status in (429, 503):
        names += ["Retry-After", "Retry-After-Ms"]
    if status == 401:
        names.append("WWW-Authenticate")
    if creates and status < 300:
        names.append(REPLAYED_HEADER)
    return {name: {"$ref": _HEADER.format(name=name)} for name in names}
