"""Users and API keys in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime

from hearth.host.clock import Clock
from hearth.model import ApiKey, User
from hearth.store import refusals
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.memory_tables import Tables, page_of
from hearth.store.user_store import KEYS_KEPT_FOR, MAX_KEYS, NewKey, SigningKey, UserChanges
from hearth.tenancy import KeyKind


class MemoryUsers:
    """``UserStore`` in memory."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._tables = tables
        self._clock = clock

    async def create(self, user: User) -> None:
        if user.id in self._tables.users or self._is_taken(user.name):
            raise refusals.taken("user", user.name, field="name")
        now = self._clock.now()
        self._tables.users[user.id] = (now, dataclasses.replace(user, created_at=now))

    async def get(self, user_id: str) -> User:
        return self._row(user_id)[1]

    async def find(self, name: str) -> User:
        for _, user in self._tables.users.values():
            if user.name == name:
                return user
        raise refusals.not_found("user", name)

    async def list(self, page: PageRequest = FIRST_PAGE) -> Page[User]:
        cut = page_of(self._tables.users.values(), page, lambda row: (row[0], row[1].id))
        return Page(items=[user for _, user in cut.items], next_cursor=cut.next_cursor)

    async def change(self, user_id: str, changes: UserChanges) -> User:
        created_at, current = self._row(user_id)
        if changes.name not in (None, current.name) and self._is_taken(changes.name or ""):
            raise refusals.taken("user", changes.name or "", field="name")
        if changes.admin is False:
            self._require_another_admin(current)
        changed = dataclasses.replace(
            current,
            name=current.name if changes.name is None else changes.name,
            admin=current.admin if changes.admin is None else changes.admin,
        )
        self._tables.users[user_id] = (created_at, changed)
        return changed

    async def delete(self, user_id: str) -> None:
        user = self._row(user_id)[1]
        sandboxes = sum(sandbox.owner == user_id for sandbox in self._tables.sandboxes.values())
        snapshots = sum(snapshot.owner == user_id for snapshot in self._tables.snapshots.values())
        volumes = sum(volume.owner == user_id for volume in self._tables.volumes.values())
        if sandboxes or snapshots or volumes:
            raise refusals.owns(user_id, sandboxes, snapshots, volumes)
        self._require_another_admin(user)
        del self._tables.users[user_id]
        for sandbox_id in [ending.sandbox_id for ending in self._tables.endings.values() if ending.owner == user_id]:
            del self._tables.endings[sandbox_id]
        for template_id in [each.id for each in self._tables.templates.values() if each.owner == user_id]:
            del self._tables.templates[template_id]
        for place in [place for place in self._tables.secrets if place[0] == user_id]:
            del self._tables.secrets[place]
        for key_id in [new.key.id for new in self._tables.keys.values() if new.key.user_id == user_id]:
            del self._tables.keys[key_id]

    async def add_key(self, new: NewKey) -> None:
        self._row(new.key.user_id)
        now = self._clock.now()
        known = self._tables.keys
        if new.key.id in known or any(new.digest == other.digest for other in known.values()):
            raise refusals.taken("key", new.key.id)
        mine = [other.key for other in known.values() if other.key.user_id == new.key.user_id]
        for key in mine:
            ends = [moment for moment in (key.revoked_at, key.expires_at) if moment is not None]
            if ends and min(ends) < now - KEYS_KEPT_FOR:
                del known[key.id]
        if sum(key.is_valid(now) for key in mine) >= MAX_KEYS:
            raise refusals.too_many_keys(new.key.user_id, MAX_KEYS)
        known[new.key.id] = new

    async def authenticate(self, digest: str) -> tuple[User, ApiKey]:
        for new in self._tables.keys.values():
            if new.digest == digest and new.key.is_valid(self._clock.now()):
                return self._row(new.key.user_id)[1], new.key
        raise refusals.bad_key()

    async def signing_key(self, key_id: str) -> SigningKey:
        new = self._tables.keys.get(key_id)
        if (
            new is None
            or new.key.kind is not KeyKind.HMAC
            or not new.key.is_valid(self._clock.now())
            or new.sealed is None
            or new.sealed_by is None
        ):
            raise refusals.bad_key()
        user = self._row(new.key.user_id)[1]
        return SigningKey(user=user, key=new.key, sealed=new.sealed, sealed_by=new.sealed_by)

    async def note_signature(self, digest: str, expires_at: datetime) -> bool:
        now, seen = self._clock.now(), self._tables.signatures
        for old in [known for known, ends in seen.items() if ends <= now]:
            del seen[old]
        if digest in seen:
            return False
        seen[digest] = expires_at
        return True

    async def list_keys(self, user_id: str) -> Sequence[ApiKey]:
        mine = [new.key for new in self._tables.keys.values() if new.key.user_id == user_id]
        return sorted(mine, key=lambda key: (key.created_at, key.id))

    async def touch_key(self, key_id: str) -> None:
        if (known := self._tables.keys.get(key_id)) is not None:
            self._keep(known, dataclasses.replace(known.key, last_used_at=self._clock.now()))

    async def replace_key(self, key_id: str, new: NewKey, *, ends_at: datetime) -> None:
        known = self._tables.keys.get(key_id)
        if known is None or known.key.user_id != new.key.user_id or not known.key.is_valid(self._clock.now()):
            raise refusals.not_found("valid key", key_id)
        expires_at = known.key.expires_at
        ended = dataclasses.replace(known.key, expires_at=ends_at if expires_at is None else min(ends_at, expires_at))
        self._keep(known, ended)
        try:
            await self.add_key(new)
        except BaseException:
            self._keep(known, known.key)
            raise

    async def revoke_key(self, key_id: str) -> None:
        known = self._tables.keys.get(key_id)
        if known is None or known.key.revoked_at is not None:
            raise refusals.not_found("valid key", key_id)
        self._keep(known, dataclasses.replace(known.key, revoked_at=self._clock.now()))

    def _keep(self, known: NewKey, key: ApiKey) -> None:
        self._tables.keys[key.id] = dataclasses.replace(known, key=key)

    def _is_taken(self, name: str) -> bool:
        return any(other.name == name for _, other in self._tables.users.values())

    def _require_another_admin(self, user: User) -> None:
        if user.admin and not any(other.admin and other.id != user.id for _, other in self._tables.users.values()):
            raise refusals.last_admin(user.id)

    def _row(self, user_id: str) -> tuple[datetime, User]:
        try:
            return self._tables.users[user_id]
        except KeyError:
            raise refusals.not_found("user", user_id) from None
