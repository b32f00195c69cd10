"""/api/v1/users, and the keys of a user."""

from __future__ import annotations

from datetime import UTC, datetime

from hearth.api.schemas import ListPage, Nothing
from hearth.api.user_operations import (
    CHANGE_USER,
    CREATE_KEY,
    CREATE_USER,
    DELETE_USER,
    GET_USER,
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
    KeyView,
    NewKeyView,
    NewUserView,
    RotateKey,
    UserList,
    UserView,
)
from hearth.control.users import IssuedKey, WantedKey
from hearth.model import ApiKey, User
from hearth.server.resource import Call, bind
from hearth.store.base import PageRequest
from hearth.store.user_store import UserChanges
from hearth.tenancy import KeyKind, KeyScope


async def create(call: Call[CreateUser]) -> NewUserView:
    user, issued = await call.daemon.users.create(call.user, call.input.name, admin=call.input.admin)
    return NewUserView(user=_view(user), key=_key_view(issued.key), secret=issued.secret)


async def list_users(call: Call[ListPage]) -> UserList:
    wanted = PageRequest(limit=call.input.limit, cursor=call.input.cursor)
    page = await call.daemon.users.list(call.user, wanted)
    return UserList(items=[_view(each) for each in page.items], next_cursor=page.next_cursor)


async def get(call: Call[Nothing]) -> UserView:
    return _view(await call.daemon.users.get(call.user, call.ref))


async def change(call: Call[ChangeUser]) -> UserView:
    changes = UserChanges(name=call.input.name, admin=call.input.admin)
    return _view(await call.daemon.users.change(call.user, call.ref, changes))


async def delete(call: Call[Nothing]) -> Nothing:
    await call.daemon.users.delete(call.user, call.ref)
    return Nothing()


async def list_keys(call: Call[Nothing]) -> KeyList:
    return KeyList(items=[_key_view(key) for key in await call.daemon.users.keys(call.user, call.ref)])


async def create_key(call: Call[CreateKey]) -> NewKeyView:
    asked, owner = call.input, await call.daemon.users.get(call.user, call.ref)
    sandbox = None if asked.sandbox is None else await call.daemon.sandboxes.get(owner, asked.sandbox)
    wanted = WantedKey(
        name=asked.name or "",
        scope=KeyScope(asked.scope),
        kind=KeyKind(asked.kind),
        sandbox_id=None if sandbox is None else sandbox.id,
        ttl_s=asked.ttl_s,
    )
    return _issued_view(await call.daemon.users.add_key(call.user, owner.id, wanted))


async def revoke_key(call: Call[Nothing]) -> Nothing:
    await call.daemon.users.revoke_key(call.user, call.ref, call.request.path_params["key"])
    return Nothing()


async def rotate_key(call: Call[RotateKey]) -> NewKeyView:
    asked = call.input
    issued = await call.daemon.users.rotate_key(call.caller, call.ref, old=asked.key, overlap_s=asked.overlap_s)
    return _issued_view(issued)


def _view(user: User) -> UserView:
    if user.created_at is None:
        raise AssertionError("a stored user has a beginning")
    return UserView(id=user.id, name=user.name, admin=user.admin, created_at=user.created_at)


def _key_view(key: ApiKey) -> KeyView:
    return KeyView(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        kind=key.kind.value,
        scope=key.scope.value,
        valid=key.is_valid(datetime.now(UTC)),
        created_at=key.created_at,
        sandbox=key.sandbox_id,
        expires_at=key.expires_at,
        revoked_at=key.revoked_at,
        last_used_at=key.last_used_at,
    )


def _issued_view(issued: IssuedKey) -> NewKeyView:
    return NewKeyView(key=_key_view(issued.key), secret=issued.secret)


BOUND = (
    bind(CREATE_USER, create),
    bind(LIST_USERS, list_users),
    bind(GET_USER, get),
    bind(CHANGE_USER, change),
    bind(DELETE_USER, delete),
    bind(LIST_KEYS, list_keys),
    bind(CREATE_KEY, create_key),
    bind(REVOKE_KEY, revoke_key),
    bind(ROTATE_KEY, rotate_key),
)
