"""Users and their API keys: administrators make users, everybody makes and ends keys of his own."""

from __future__ import annotations

from typing import Any

from hearth.api.audit_schemas import AuditList, ListAudit
from hearth.api.limits import PREFIX
from hearth.api.operation import Operation
from hearth.api.quota_schemas import ChangeQuotas, UsageView
from hearth.api.schemas import ListPage, Nothing
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
from hearth.errors import Code
from hearth.tenancy import KeyScope

USERS = f"{PREFIX}/users"
USER = f"{USERS}/{{ref}}"
KEYS = f"{USER}/keys"

CREATE_USER = Operation(
    name="create_user",
    gives_secret=True,
    method="POST",
    path=USERS,
    summary="Make a user with a first key; only administrators may.",
    takes=CreateUser,
    gives=NewUserView,
    statuses=(201,),
    errors=(Code.CONFLICT,),
    scope=KeyScope.FULL,
)
LIST_USERS = Operation(
    name="list_users",
    method="GET",
    path=USERS,
    summary="List all users, oldest first, a page at a time; only administrators may.",
    takes=ListPage,
    gives=UserList,
    scope=KeyScope.FULL,
)
GET_USER = Operation(
    name="get_user",
    method="GET",
    path=USER,
    summary="Show a user, by id or name; 'me' is the caller.",
    takes=Nothing,
    gives=UserView,
    errors=(Code.NOT_FOUND,),
)
CHANGE_USER = Operation(
    name="change_user",
    method="PATCH",
    path=USER,
    summary="Change a user's name or rights; only administrators may.",
    takes=ChangeUser,
    gives=UserView,
    errors=(Code.NOT_FOUND, Code.CONFLICT),
    scope=KeyScope.FULL,
)
DELETE_USER = Operation(
    name="delete_user",
    method="DELETE",
    path=USER,
    summary="Delete a user who owns nothing any more, with all keys; only administrators may.",
    takes=Nothing,
    gives=Nothing,
    statuses=(204,),
    errors=(Code.NOT_FOUND, Code.CONFLICT),
    scope=KeyScope.FULL,
)
LIST_KEYS = Operation(
    name="list_keys",
    method="GET",
    path=KEYS,
    summary="List a user's keys, without their secrets.",
    takes=Nothing,
    gives=KeyList,
    errors=(Code.NOT_FOUND,),
    scope=KeyScope.FULL,
)
CREATE_KEY = Operation(
    name="create_key",
    gives_secret=True,
    method="POST",
    path=KEYS,
    summary="Make a further key, which may be narrower, end by itself, or sign requests; its secret is shown once.",
    takes=CreateKey,
    gives=NewKeyView,
    statuses=(201,),
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.HOST_UNFIT),
    body_optional=True,
    scope=KeyScope.FULL,
)
REVOKE_KEY = Operation(
    name="revoke_key",
    method="DELETE",
    path=f"{KEYS}/{{key}}",
    summary="End a key now.",
    takes=Nothing,
    gives=Nothing,
    statuses=(204,),
    errors=(Code.NOT_FOUND,),
    scope=KeyScope.FULL,
)
ROTATE_KEY = Operation(
    name="rotate_key",
    gives_secret=True,
    method="POST",
    path=f"{USER}/rotate-key",
    summary="Make a key in place of another, which stays valid for a while if that is asked; the secret is shown once.",
    takes=RotateKey,
    gives=NewKeyView,
    statuses=(201,),
    errors=(Code.NOT_FOUND, Code.CONFLICT, Code.HOST_UNFIT),
    body_optional=True,
    scope=KeyScope.FULL,
)
GET_USAGE = Operation(
    name="get_usage",
    method="GET",
    path=f"{USER}/usage",
    summary="Tell how much of everything a user has and may have.",
    takes=Nothing,
    gives=UsageView,
    errors=(Code.NOT_FOUND,),
)
CHANGE_QUOTAS = Operation(
    name="change_quotas",
    method="PATCH",
    path=f"{USER}/quotas",
    summary="Say how much a user may have; only administrators may.",
    takes=ChangeQuotas,
    gives=UsageView,
    errors=(Code.NOT_FOUND,),
    scope=KeyScope.FULL,
)
LIST_AUDIT = Operation(
    name="list_audit",
    method="GET",
    path=f"{PREFIX}/audit",
    summary="List the changes the caller made, everybody's for an administrator, the oldest first, a page at a time.",
    takes=ListAudit,
    gives=AuditList,
    errors=(Code.NOT_FOUND,),
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (
    CREATE_USER,
    LIST_USERS,
    GET_USER,
    CHANGE_USER,
    DELETE_USER,
    LIST_KEYS,
    CREATE_KEY,
    REVOKE_KEY,
    ROTATE_KEY,
    GET_USAGE,
    CHANGE_QUOTAS,
    LIST_AUDIT,
)
