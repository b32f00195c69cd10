"""The operations on secrets as values; the rest is in ``calls``."""

from __future__ import annotations

import base64
from typing import NotRequired, TypedDict

from hearth.api.limits import MAX_LIST_LIMIT
from hearth.api.schemas import ListPage, Nothing
from hearth.api.secret_operations import DELETE_SECRET, LIST_SECRETS, PUT_SECRET, ROTATE_MASTER_KEY
from hearth.api.secret_schemas import MasterKeyView, PutSecret, SecretList, SecretView
from hearth.sdk.call import LONG_S, Call, call_of, checked


class SecretVariableOptions(TypedDict):
    """A secret for a command, as the variable ``env``, or that of its own name."""

    name: str
    env: NotRequired[str]


class SecretOptions(SecretVariableOptions):
    """A secret for a new sandbox: as a variable, or with ``file`` as /run/secrets/NAME."""

    file: NotRequired[bool]


def put(name: str, value: str | bytes) -> Call[SecretView]:
    given = {"name": name, "value": value}
    if isinstance(value, bytes):
        given |= {"value": base64.b64encode(value).decode(), "encoding": "base64"}
    return call_of(PUT_SECRET, checked(PutSecret, given))


def page(cursor: str | None) -> Call[SecretList]:
    return call_of(LIST_SECRETS, ListPage(limit=MAX_LIST_LIMIT, cursor=cursor))


def delete(name: str) -> Call[Nothing]:
    return call_of(DELETE_SECRET, Nothing(), ref=name, what="secret")


def rotate_master_key() -> Call[MasterKeyView]:
    return call_of(ROTATE_MASTER_KEY, Nothing(), timeout_s=LONG_S)
