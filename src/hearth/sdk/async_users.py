"""Users and their keys for the asynchronous client: ``client.users.create("ada")``; the twin of ``users``."""

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
        """Make a user; the ``secret`` of the first key is shown this once."""
        return await self._client.call(user_calls.create(name, admin=admin))

    async def every(self) -> Sequence[UserView]:
        """Give all users, oldest first."""
        page = await self._client.call(user_calls.page(None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = await self._client.call(user_calls.page(page.next_cursor))
            found += page.items
        return found

    async def get(self, ref: str = MYSELF) -> UserView:
        """Give one user."""
        return await self._client.call(user_calls.get(ref))

    async def change(self, ref: str, *, name: str | None = None, admin: bool | None = None) -> UserView:
        """Change a user's name or rights; what is not given stays."""
        return await self._client.call(user_calls.change(ref, name=name, admin=admin))

    async def delete(self, ref: str) -> None:
        """Delete a user who owns nothing any more."""
        await self._client.call(user_calls.delete(ref))

    async def keys_of(self, ref: str = MYSELF) -> Sequence[KeyView]:
        """Give a user's keys, oldest first, those that ended too."""
        return (await self._client.call(user_calls.keys(ref))).items

    async def create_key(self, ref: str = MYSELF, **options: Unpack[KeyOptions]) -> NewKeyView:
        """Make a further key; its ``secret`` is shown this once."""
        return await self._client.call(user_calls.create_key(ref, options))

    async def revoke_key(self, key: str, ref: str = MYSELF) -> None:
        """End a key now."""
        await self._client.call(user_calls.revoke_key(ref, key))

    async def rotate_key(self, ref: str = MYSELF, *, key: str | None = None, overlap_s: int = 0) -> NewKeyView:
        """Make a key in place of another (None: of the one this client has), which stays valid for ``overlap_s`` s."""
        return await self._client.call(user_calls.rotate_key(ref, key=key, overlap_s=overlap_s))

    async def usage(self, ref: str = MYSELF) -> UsageView:
        """Tell how much of everything a user has and may have."""
        return await self._client.call(quota_calls.usage(ref))

    async def set_quotas(self, ref: str, **quotas: Unpack[QuotaOptions]) -> UsageView:
        """Say how much a user may have."""
        return await self._client.call(quota_calls.change(ref, quotas))

    async def audit(
        self, *, since: datetime | None = None, user: str | None = None, action: str | None = None
    ) -> Sequence[AuditView]:
        """Give the changes the caller made, everybody's for an administrator, the oldest first."""
        page = await self._client.call(user_calls.audit_page(since, user, action, None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = await self._client.call(user_calls.audit_page(since, user, action, page.next_cursor))
            found += page.items
        return found
