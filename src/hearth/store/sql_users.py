"""Users and API keys in SQL."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from hearth.host.clock import Clock
from hearth.model import ApiKey, User
from hearth.store import refusals, rows
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.database import Database
from hearth.store.paging import cut_page, read_request
from hearth.store.schema import api_keys, sandboxes, snapshots, users, volumes
from hearth.store.sql_paging import page_of

GET = select(users).where(users.c.id == bindparam("user_id"))
FIND = select(users).where(users.c.name == bindparam("user_name"))
KEY_OF_DIGEST = select(api_keys).where(api_keys.c.sha256 == bindparam("digest"))


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
            raise refusals.taken("user", user.name) from error

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

    async def delete(self, user_id: str) -> None:
        def work(connection: Connection) -> None:
            owned = [
                connection.scalar(select(func.count()).where(table.c.owner == user_id)) or 0
                for table in (sandboxes, snapshots, volumes)
            ]
            if any(owned):
                raise refusals.owns(user_id, *owned)
            if connection.execute(delete(users).where(users.c.id == user_id)).rowcount == 0:
                raise refusals.not_found("user", user_id)

        await self._database.write(work)

    async def add_key(self, key: ApiKey, digest: str) -> None:
        row = {
            "id": key.id,
            "user_id": key.user_id,
            "sha256": digest,
            "prefix": key.prefix,
            "created_at": key.created_at,
            "expires_at": key.expires_at,
            "revoked_at": key.revoked_at,
        }

        def work(connection: Connection) -> None:
            if connection.execute(GET, {"user_id": key.user_id}).first() is None:
                raise refusals.not_found("user", key.user_id)
            connection.execute(insert(api_keys), row)

        try:
            await self._database.write(work)
        except IntegrityError as error:
            raise refusals.taken("key", key.id) from error

    async def authenticate(self, digest: str) -> tuple[User, ApiKey]:
        def work(connection: Connection) -> tuple[User, ApiKey] | None:
            found = connection.execute(KEY_OF_DIGEST, {"digest": digest}).first()
            if found is None:
                return None
            owner = connection.execute(GET, {"user_id": found.user_id}).first()
            return None if owner is None else (rows.user_of(owner), rows.key_of(found))

        known = await self._database.read(work)
        if known is None or not known[1].is_valid(self._clock.now()):
            raise refusals.bad_key()
        return known

    async def list_keys(self, user_id: str) -> Sequence[ApiKey]:
        order = (api_keys.c.created_at, api_keys.c.id)
        statement = select(api_keys).where(api_keys.c.user_id == user_id).order_by(*order)
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        return [rows.key_of(row) for row in found]

    async def revoke_key(self, key_id: str) -> None:
        now = self._clock.now()
        statement = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))

        def work(connection: Connection) -> None:
            if connection.execute(statement.values(revoked_at=now)).rowcount == 0:
                raise refusals.not_found("valid key", key_id)

        await self._database.write(work)
