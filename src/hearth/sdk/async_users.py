"""Users and their keys for the asynchronous client: ``client.users.create("ada")``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, TypeVar, Unpack

from hearth.api.audit_schemas import AuditView
from hearth.api.quota_schemas import UsageView
from hearth.api.user_schemas import KeyView, NewKeyView, NewUserView, UserView
from hearth.sdk import quota_calls, user_calls
from hearth.sdk.call import Call
from hearth.sdk.quota_calls import QuotaOptions
from hearth.sdk.user_calls import MYSELF, KeyOptions

Value = TypeVar("Value")


class AsyncCaller(Protocol):
    """What carries calls out."""

    async def call(self, call: Call[Value]) -> Value: ...


class AsyncUsers:
    """Users and keys. Administrators name any user; for everybody else there is only ``me``."""

    def __init__(self, client: AsyncCaller) -> None:
        self._client = client

    async def create(self, name: str, *, admin: bool = False) -> NewUserView:
        """Make a user; the ``secret`` of the first key is shown this once.

        >>> made = await client.users.create("ada")
        >>> made.secret.startswith("hk_")
        True
        >>> await client.users.delete("ada")
        """
        return await self._client.call(user_calls.create(name, admin=admin))

    async def every(self) -> Sequence[UserView]:
        """Give all users, oldest first.

        >>> any(user.admin for user in await client.users.every())
        True
        """
        page = await self._client.call(user_calls.page(None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = await self._client.call(user_calls.page(page.next_cursor))
            found += page.items
        return found

    async def get(self, ref: str = MYSELF) -> UserView:
        """Give one user.

        >>> (await client.users.get()).admin
        True
        """
        return await self._client.call(user_calls.get(ref))

    async def change(self, ref: str, *, name: str | None = None, admin: bool | None = None) -> UserView:
        """Change a user's name or rights; what is not given stays.

        >>> made = await client.users.create("eve")
        >>> (await client.users.change("eve", name="eva")).name
        'eva'
        >>> await client.users.delete("eva")
        """
        return await self._client.call(user_calls.change(ref, name=name, admin=admin))

    async def delete(self, ref: str) -> None:
        """Delete a user who owns nothing any more.

        >>> made = await client.users.create("bob")
        >>> await client.users.delete("bob")
        """
        await self._client.call(user_calls.delete(ref))

    async def keys_of(self, ref: str = MYSELF) -> Sequence[KeyView]:
        """Give a user's keys, oldest first, those that ended too.

        >>> [key.kind for key in await client.users.keys_of("me") if key.valid]
        ['bearer']
        """
        return (await self._client.call(user_calls.keys(ref))).items

    async def create_key(self, ref: str = MYSELF, **options: Unpack[KeyOptions]) -> NewKeyView:
        """Make a further key; its ``secret`` is shown this once.

        >>> made = await client.users.create_key(name="ci", scope="exec", ttl_s=3600)
        >>> made.key.scope
        'exec'
        >>> await client.users.revoke_key(made.key.id)
        """
        return await self._client.call(user_calls.create_key(ref, options))

    async def revoke_key(self, key: str, ref: str = MYSELF) -> None:
        """End a key now, by its id or name.

        >>> made = await client.users.create_key(name="lost")
        >>> await client.users.revoke_key("lost")
        """
        await self._client.call(user_calls.revoke_key(ref, key))

    async def rotate_key(self, ref: str = MYSELF, *, key: str | None = None, overlap_s: int = 0) -> NewKeyView:
        """Make a key in place of another (None: of the one this client has), which stays valid for ``overlap_s`` s.

        >>> made = await client.users.create_key(name="old")
        >>> newer = await client.users.rotate_key(key=made.key.id)
        >>> await client.users.revoke_key(newer.key.id)
        """
        return await self._client.call(user_calls.rotate_key(ref, key=key, overlap_s=overlap_s))

    async def usage(self, ref: str = MYSELF) -> UsageView:
        """Tell how much of everything a user has and may have.

        >>> usage = await client.users.usage()
        >>> usage.sandboxes.used
        1
        """
        return await self._client.call(quota_calls.usage(ref))

    async def set_quotas(self, ref: str, **quotas: Unpack[QuotaOptions]) -> UsageView:
        """Say how much a user may have.

        >>> made = await client.users.create("tim")
        >>> (await client.users.set_quotas("tim", sandboxes=3)).sandboxes.limit
        3
        >>> await client.users.delete("tim")
        """
        return await self._client.call(quota_calls.change(ref, quotas))

    async def audit(
        self, *, since: datetime | None = None, user: str | None = None, action: str | None = None
    ) -> Sequence[AuditView]:
        """Give the changes the caller made, everybody's for an administrator, the oldest first.

        >>> kept = await client.secrets.put("AUDITED", "x")
        >>> "put_secret" in {entry.action for entry in await client.users.audit()}
        True
        >>> await client.secrets.delete("AUDITED")
        """
        page = await self._client.call(user_calls.audit_page(since, user, action, None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = await self._client.call(user_calls.audit_page(since, user, action, page.next_cursor))
            found += page.items
        return found
