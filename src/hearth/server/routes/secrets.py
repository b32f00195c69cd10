"""/api/v1/secrets and /api/v1/master-key."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from hearth.api.schemas import ExecCommand, ListPage, Nothing
from hearth.api.secret_operations import DELETE_SECRET, LIST_SECRETS, PUT_SECRET, ROTATE_MASTER_KEY
from hearth.api.secret_schemas import (
    MasterKeyView,
    PutSecret,
    SecretList,
    SecretUse,
    SecretVariable,
    SecretView,
)
from hearth.control.users import require_scope
from hearth.errors import InvalidInput
from hearth.server.resource import Call, bind
from hearth.store.base import PageRequest
from hearth.tenancy import KeyScope, SealedSecret
from hearth.tenancy import SecretUse as Use


async def list_secrets(call: Call[ListPage]) -> SecretList:
    wanted = PageRequest(limit=call.input.limit, cursor=call.input.cursor)
    page = await call.daemon.secrets.list(call.user, wanted)
    return SecretList(items=[_view(each) for each in page.items], next_cursor=page.next_cursor)


async def put(call: Call[PutSecret]) -> SecretView:
    return _view(await call.daemon.secrets.put(call.user, call.input.name, _value(call.input)))


async def delete(call: Call[Nothing]) -> Nothing:
    await call.daemon.secrets.delete(call.user, call.ref)
    return Nothing()


async def rotate_master_key(call: Call[Nothing]) -> MasterKeyView:
    return MasterKeyView(resealed=await call.daemon.secrets.rotate_master_key(call.user))


async def secret_variables(call: Call[ExecCommand]) -> Mapping[str, str]:
    """Give the variables a command gets of the caller's secrets.

    Raises:
        Forbidden: the key is for less: a command could tell the values to whoever may run it.
        NotFound, InvalidInput, HostUnfit: as ``Secrets.environment``.
    """
    if not call.input.secrets:
        return {}
    require_scope(call.caller, KeyScope.WRITE)
    return await call.daemon.secrets.environment(call.user, [secret_use(each) for each in call.input.secrets])


def secret_use(asked: SecretUse | SecretVariable) -> Use:
    """Read how a sandbox or a command is to have a secret.

    Raises:
        InvalidInput: as a file and as a variable.
    """
    as_file = isinstance(asked, SecretUse) and asked.file
    if as_file and asked.env is not None:
        raise InvalidInput(
            "invalid secrets",
            details=f"{asked.name} is to be a file and a variable",
            resolution="use it twice, or choose",
            field="secrets",
        )
    return Use(name=asked.name, env=None if as_file else asked.env or asked.name)


def _value(asked: PutSecret) -> bytes:
    if asked.encoding == "utf-8":
        return asked.value.encode()
    try:
        return base64.b64decode(asked.value, validate=True)
    except (binascii.Error, ValueError):
        # Without its cause: that would bring the value into a log.
        raise InvalidInput(
            "invalid value",
            details="value is not base64",
            resolution="send base64 with padding, or text without encoding",
            field="value",
        ) from None


def _view(secret: SealedSecret) -> SecretView:
    return SecretView(name=secret.name, created_at=secret.created_at, updated_at=secret.updated_at)


BOUND = (
    bind(LIST_SECRETS, list_secrets),
    bind(PUT_SECRET, put),
    bind(DELETE_SECRET, delete),
    bind(ROTATE_MASTER_KEY, rotate_master_key),
)
