# Made of async_users.py by 'make twins': change that.
"""Users and their keys for the blocking client: ``client.users.create("ada")``."""

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


class Caller(Protocol):
    """What carries calls out."""

    def call(self, call: Call[Value]) -> Value: ...


class Users:
    """Users and keys. Administrators name any user; for everybody else there is only ``me``."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    def create(self, name: str, *, admin: bool = False) -> NewUserView:
        """Make a user; the ``secret`` of the first key is shown this once.

        >>> made = client.users.create("ada")
        >>> made.secret.startswith("hk_")
        True
        >>> client.users.delete("ada")
        """
        return self._client.call(user_calls.create(name, admin=admin))

    def every(self) -> Sequence[UserView]:
        """Give all users, oldest first.

        >>> any(user.admin for user in client.users.every())
        True
        """
        page = self._client.call(user_calls.page(None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = self._client.call(user_calls.page(page.next_cursor))
            found += page.items
        return found

    def get(self, ref: str = MYSELF) -> UserView:
        """Give one user.

        >>> client.users.get().admin
        True
        """
        return self._client.call(user_calls.get(ref))

    def change(self, ref: str, *, name: str | None = None, admin: bool | None = None) -> UserView:
        """Change a user's name or rights; what is not given stays.

        >>> made = client.users.create("eve")
        >>> client.users.change("eve", name="eva").name
        'eva'
        >>> client.users.delete("eva")
        """
        return self._client.call(user_calls.change(ref, name=name, admin=admin))

    def delete(self, ref: str) -> None:
        """Delete a user who owns nothing any more.

        >>> made = client.users.create("bob")
        >>> client.users.delete("bob")
        """
        self._client.call(user_calls.delete(ref))

    def keys_of(self, ref: str = MYSELF) -> Sequence[KeyView]:
        """Give a user's keys, oldest first, those that ended too.

        >>> [key.kind for key in client.users.keys_of("me") if key.valid]
        ['bearer']
        """
        return self._client.call(user_calls.keys(ref)).items

    def create_key(self, ref: str = MYSELF, **options: Unpack[KeyOptions]) -> NewKeyView:
        """Make a further key; its ``secret`` is shown this once.

        >>> made = client.users.create_key(name="ci", scope="exec", ttl_s=3600)
        >>> made.key.scope
        'exec'
        >>> client.users.revoke_key(made.key.id)
        """
        return self._client.call(user_calls.create_key(ref, options))

    def revoke_key(self, key: str, ref: str = MYSELF) -> None:
        """End a key now, by its id or name.

        >>> made = client.users.create_key(name="lost")
        >>> client.users.revoke_key("lost")
        """
        self._client.call(user_calls.revoke_key(ref, key))

    def rotate_key(self, ref: str = MYSELF, *, key: str | None = None, overlap_s: int = 0) -> NewKeyView:
        """Make a key in place of another (None: of the one this client has), which stays valid for ``overlap_s`` s.

        >>> made = client.users.create_key(name="old")
        >>> newer = client.users.rotate_key(key=made.key.id)
        >>> client.users.revoke_key(newer.key.id)
        """
        return self._client.call(user_calls.rotate_key(ref, key=key, overlap_s=overlap_s))

    def usage(self, ref: str = MYSELF) -> UsageView:
        """Tell how much of everything a user has and may have.

        >>> usage = client.users.usage()
        >>> usage.sandboxes.used
        1
        """
        return self._client.call(quota_calls.usage(ref))

    def set_quotas(self, ref: str, **quotas: Unpack[QuotaOptions]) -> UsageView:
        """Say how much a user may have.

        >>> made = client.users.create("tim")
        >>> client.users.set_quotas("tim", sandboxes=3).sandboxes.limit
        3
        >>> client.users.delete("tim")
        """
        return self._client.call(quota_calls.change(ref, quotas))

    def audit(
        self, *, since: datetime | None = None, user: str | None = None, action: str | None = None
    ) -> Sequence[AuditView]:
        """Give the changes the caller made, everybody's for an administrator, the oldest first.

        >>> kept = client.secrets.put("AUDITED", "x")
        >>> "put_secret" in {entry.action for entry in client.users.audit()}
        True
        >>> client.secrets.delete("AUDITED")
        """
        page = self._client.call(user_calls.audit_page(since, user, action, None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = self._client.call(user_calls.audit_page(since, user, action, page.next_cursor))
            found += page.items
        return found
