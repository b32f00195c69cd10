"""The operations on users and keys as values; the rest is in ``calls``."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Literal, TypedDict
from urllib.parse import quote

from hearth.api.audit_schemas import AuditList, ListAudit
from hearth.api.limits import MAX_LIST_LIMIT
from hearth.api.schemas import ListPage, Nothing
from hearth.api.user_operations import (
    CHANGE_USER,
    CREATE_KEY,
    CREATE_USER,
    DELETE_USER,
    GET_USER,
    LIST_AUDIT,
    LIST_KEYS,
    LIST_USERS,
    REVOKE_KEY,
    ROTATE_KEY,
)
from hearth.api.user_schemas import (
    ChangeUser,
    CreateKey,
    CreateUser,
    KeyList,
    NewKeyView,
    NewUserView,
    RotateKey,
    UserList,
    UserView,
)
from hearth.sdk.call import Call, call_of, check_ref, checked

USER = "user"
MYSELF = "me"
"""Stands for the caller wherever a user is named."""


class KeyOptions(TypedDict, total=False):
    """What ``create_key`` takes; ``sandbox`` is the only one it opens, ``ttl_s`` seconds until it ends."""

    name: str | None
    scope: Literal["read", "exec", "write", "full"]
    kind: Literal["bearer", "hmac"]
    sandbox: str | None
    ttl_s: int | None


def create(name: str, *, admin: bool) -> Call[NewUserView]:
    return call_of(CREATE_USER, checked(CreateUser, {"name": name, "admin": admin}))


def page(cursor: str | None) -> Call[UserList]:
    return call_of(LIST_USERS, ListPage(limit=MAX_LIST_LIMIT, cursor=cursor))


def get(ref: str) -> Call[UserView]:
    return call_of(GET_USER, Nothing(), ref=ref, what=USER)


def change(ref: str, *, name: str | None, admin: bool | None) -> Call[UserView]:
    return call_of(CHANGE_USER, checked(ChangeUser, {"name": name, "admin": admin}), ref=ref, what=USER)


def delete(ref: str) -> Call[Nothing]:
    return call_of(DELETE_USER, Nothing(), ref=ref, what=USER)


def keys(ref: str) -> Call[KeyList]:
    return call_of(LIST_KEYS, Nothing(), ref=ref, what=USER)


def create_key(ref: str, options: KeyOptions) -> Call[NewKeyView]:
    return call_of(CREATE_KEY, checked(CreateKey, {**options}), ref=ref, what=USER)


def revoke_key(ref: str, key: str) -> Call[Nothing]:
    path = REVOKE_KEY.path.replace("{key}", quote(check_ref(key, "key"), safe=""))
    return call_of(replace(REVOKE_KEY, path=path), Nothing(), ref=ref, what=USER)


def rotate_key(ref: str, *, key: str | None, overlap_s: int) -> Call[NewKeyView]:
    return call_of(ROTATE_KEY, checked(RotateKey, {"key": key, "overlap_s": overlap_s}), ref=ref, what=USER)


def audit_page(since: datetime | None, user: str | None, action: str | None, cursor: str | None) -> Call[AuditList]:
    query = ListAudit(since=since, user=user, action=action, cursor=cursor, limit=MAX_LIST_LIMIT)
    return call_of(LIST_AUDIT, query)
