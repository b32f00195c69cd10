"""Secrets: a user's own, encrypted at rest, for sandboxes and commands; values go in and never come out."""

from __future__ import annotations

from typing import Any

from hearth.api.limits import PREFIX
from hearth.api.operation import Operation
from hearth.api.schemas import ListPage, Nothing
from hearth.api.secret_schemas import MasterKeyView, PutSecret, SecretList, SecretView
from hearth.errors import Code
from hearth.tenancy import KeyScope

SECRETS = f"{PREFIX}/secrets"

LIST_SECRETS = Operation(
    name="list_secrets",
    method="GET",
    path=SECRETS,
    summary="List the caller's secrets, without their values, oldest first, a page at a time.",
    takes=ListPage,
    gives=SecretList,
)
PUT_SECRET = Operation(
    name="put_secret",
    method="POST",
    path=SECRETS,
    summary="Keep a secret, or give one that is there a new value.",
    takes=PutSecret,
    gives=SecretView,
    errors=(Code.CONFLICT, Code.HOST_UNFIT),
)
DELETE_SECRET = Operation(
    name="delete_secret",
    method="DELETE",
    path=f"{SECRETS}/{{ref}}",
    summary="Forget a secret.",
    takes=Nothing,
    gives=Nothing,
    statuses=(204,),
    errors=(Code.NOT_FOUND,),
)
ROTATE_MASTER_KEY = Operation(
    name="rotate_master_key",
    method="POST",
    path=f"{PREFIX}/master-key/rotate",
    summary="Make a new master key and seal every secret anew with it; only administrators may.",
    takes=Nothing,
    gives=MasterKeyView,
    errors=(Code.HOST_UNFIT,),
    scope=KeyScope.FULL,
)

OPERATIONS: tuple[Operation[Any, Any], ...] = (LIST_SECRETS, PUT_SECRET, DELETE_SECRET, ROTATE_MASTER_KEY)
