"""Users and API keys in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from hearth.host.clock import Clock
from hearth.model import ApiKey, User
from hearth.store import refusals, rows
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.database import Database
from hearth.store.paging import cut_page, read_request
from hearth.store.schema import api_keys, sandboxes, signatures, snapshots, users, volumes
from hearth.store.sql_paging import page_of
from hearth.store.user_store import KEYS_KEPT_FOR, MAX_KEYS, NewKey, SigningKey, UserChanges
from hearth.tenancy import KeyKind

GET = select(users).where(users.c.id == bindparam("user_id"))
FIND = select(users).where(users.c.name == bindparam("user_name"))
KEY_OF_DIGEST = select(api_keys).where(api_keys.c.sha256 == bindparam("digest"))
KEY = select(api_keys).where(api_keys.c.id == bindparam("key_id"))


class SqlUsers:
    """``UserStore`` over a database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, user: User) -> None:
        row = {"id": user.id, "name": user.name, "admin": user.admin, "created_at": self._clock.now()}

        def work(connection: Connection) -> None:
            connection.execute(insert(users), row)

        try:
            await self._database.write(work)
        except IntegrityError as error:
            raise refusals.taken("user", user.name, field="name") from error

    async def get(self, user_id: str) -> User:
        row = await self._database.read(lambda connection: connection.execute(GET, {"user_id": user_id}).first())
        if row is None:
            raise refusals.not_found("user", user_id)
        return rows.user_of(row)

    async def find(self, name: str) -> User:
        row = await self._database.read(lambda connection: connection.execute(FIND, {"user_name": name}).first())
        if row is None:
            raise refusals.not_found("user", name)
        return rows.user_of(row)

    async def list(self, page: PageRequest = FIRST_PAGE) -> Page[User]:
        limit, after = read_request(page)
        statement = page_of(select(users), users, limit, after)
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        cut = cut_page(found, limit, lambda row: (row.created_at, row.id))
        return Page(items=[rows.user_of(row) for row in cut.items], next_cursor=cut.next_cursor)

    async def change(self, user_id: str, changes: UserChanges) -> User:
        def work(connection: Connection) -> User:
            current = connection.execute(GET.with_for_update(), {"user_id": user_id}).first()
            if current is None:
                raise refusals.not_found("user", user_id)
            name = current.name if changes.name is None else changes.name
            admin = current.admin if changes.admin is None else changes.admin
            if current.admin and not admin:
                _require_another_admin(connection, user_id)
            statement = update(users).where(users.c.id == user_id).values(name=name, admin=admin).returning(*users.c)
            return rows.user_of(connection.execute(statement).one())

        try:
            return await self._database.write(work)
        except IntegrityError as error:
            raise refusals.taken("user", changes.name or user_id, field="name") from error

    async def delete(self, user_id: str) -> None:
        def work(connection: Connection) -> None:
            current = connection.execute(GET.with_for_update(), {"user_id": user_id}).first()
            if current is None:
                raise refusals.not_found("user", user_id)
            owned = [
                connection.scalar(select(func.count()).where(table.c.owner == user_id)) or 0
                for table in (sandboxes, snapshots, volumes)
            ]
            if any(owned):
                raise refusals.owns(user_id, *owned)
            if current.admin:
                _require_another_admin(connection, user_id)
            connection.execute(delete(users).where(users.c.id == user_id))

        await self._database.write(work)

    async def add_key(self, new: NewKey) -> None:
        try:
            await self._database.write(lambda connection: self._add_key(connection, new))
        except IntegrityError as error:
            raise refusals.taken("key", new.key.id) from error

    async def authenticate(self, digest: str) -> tuple[User, ApiKey]:
        def work(connection: Connection) -> tuple[User, ApiKey] | None:
            found = connection.execute(KEY_OF_DIGEST, {"digest": digest}).first()
            return None if found is None else self._valid(connection, found)

        known = await self._database.read(work)
        if known is None:
            raise refusals.bad_key()
        return known

    async def signing_key(self, key_id: str) -> SigningKey:
        def work(connection: Connection) -> SigningKey | None:
            found = connection.execute(KEY, {"key_id": key_id}).first()
            if found is None or found.kind != KeyKind.HMAC.value or found.sealed is None:
                return None
            valid = self._valid(connection, found)
            if valid is None:
                return None
            return SigningKey(user=valid[0], key=valid[1], sealed=found.sealed, sealed_by=found.sealed_by)

        known = await self._database.read(work)
        if known is None:
            raise refusals.bad_key()
        return known

    async def note_signature(self, digest: str, expires_at: datetime) -> bool:
        now = self._clock.now()

        def work(connection: Connection) -> None:
            connection.execute(delete(signatures).where(signatures.c.expires_at <= now))
            connection.execute(insert(signatures), {"digest": digest, "expires_at": expires_at})

        try:
            await self._database.write(work)
        except IntegrityError:
            return False
        return True

    async def list_keys(self, user_id: str) -> Sequence[ApiKey]:
        order = (api_keys.c.created_at, api_keys.c.id)
        statement = select(api_keys).where(api_keys.c.user_id == user_id).order_by(*order)
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        return [rows.key_of(row) for row in found]

    async def touch_key(self, key_id: str) -> None:
        statement = update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=self._clock.now())
        await self._database.write(lambda connection: connection.execute(statement))

    async def replace_key(self, key_id: str, new: NewKey, *, ends_at: datetime) -> None:
        def work(connection: Connection) -> None:
            found = connection.execute(KEY.with_for_update(), {"key_id": key_id}).first()
            old = None if found is None else rows.key_of(found)
            if old is None or old.user_id != new.key.user_id or not old.is_valid(self._clock.now()):
                raise refusals.not_found("valid key", key_id)
            ends = ends_at if old.expires_at is None else min(ends_at, old.expires_at)
            connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(expires_at=ends))
            self._add_key(connection, new)

        try:
            await self._database.write(work)
        except IntegrityError as error:
            raise refusals.taken("key", new.key.id) from error

    async def revoke_key(self, key_id: str) -> None:
        now = self._clock.now()
        statement = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))

        def work(connection: Connection) -> None:
            if connection.execute(statement.values(revoked_at=now)).rowcount == 0:
                raise refusals.not_found("valid key", key_id)

        await self._database.write(work)

    def _add_key(self, connection: Connection, new: NewKey) -> None:
        user_id, now = new.key.user_id, self._clock.now()
        # Locked: of two that would each be the last one allowed, PostgreSQL lets the second see the first.
        if connection.execute(GET.with_for_update(), {"user_id": user_id}).first() is None:
            raise refusals.not_found("user", user_id)
        mine, long_ago = api_keys.c.user_id == user_id, now - KEYS_KEPT_FOR
        dead = or_(api_keys.c.revoked_at < long_ago, api_keys.c.expires_at < long_ago)
        connection.execute(delete(api_keys).where(mine, dead))
        valid = (api_keys.c.revoked_at.is_(None), or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > now))
        if (connection.scalar(select(func.count()).where(mine, *valid)) or 0) >= MAX_KEYS:
            raise refusals.too_many_keys(user_id, MAX_KEYS)
        connection.execute(insert(api_keys), rows.key_row(new))

    def _valid(self, connection: Connection, found: Any) -> tuple[User, ApiKey] | None:
        key = rows.key_of(found)
        if not key.is_valid(self._clock.now()):
            return None
        owner = connection.execute(GET, {"user_id": found.user_id}).first()
        return None if owner is None else (rows.user_of(owner), key)


def _require_another_admin(connection: Connection, user_id: str) -> None:
    others = select(users.c.id).where(users.c.admin, users.c.id != user_id).with_for_update()
    if connection.execute(others).first() is None:
        raise refusals.last_admin(user_id)
