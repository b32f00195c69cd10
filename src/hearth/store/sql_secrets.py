"""Sealed secrets in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from hearth.store import refusals
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.database import Database
from hearth.store.paging import cut_page, read_request
from hearth.store.schema import api_keys, secrets, users
from hearth.store.secret_store import MAX_SECRETS, Reseal, Sealed, context_of_key, context_of_secret
from hearth.store.sql_paging import page_by
from hearth.tenancy import SealedSecret


class SqlSecrets:
    """``SecretStore`` over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, secret: SealedSecret) -> SealedSecret:
        mine = (secrets.c.owner == secret.owner, secrets.c.name == secret.name)
        values = {"sealed": secret.sealed, "key_id": secret.key_id, "updated_at": secret.updated_at}

        def work(connection: Connection) -> SealedSecret:
            # Locked: of two that would each be the last one allowed, PostgreSQL lets the second see the first.
            owner = select(users.c.id).where(users.c.id == secret.owner).with_for_update()
            if connection.execute(owner).first() is None:
                raise refusals.not_found("user", secret.owner)
            changed = connection.execute(update(secrets).where(*mine).values(**values).returning(*secrets.c)).first()
            if changed is not None:
                return _secret_of(changed)
            count = select(func.count()).select_from(secrets).where(secrets.c.owner == secret.owner)
            if (connection.scalar(count) or 0) >= MAX_SECRETS:
                raise refusals.too_many_secrets(MAX_SECRETS)
            row = {"owner": secret.owner, "name": secret.name, "created_at": secret.created_at, **values}
            connection.execute(insert(secrets), row)
            return secret

        return await self._database.write(work)

    async def get(self, owner: str, names: Collection[str]) -> Sequence[SealedSecret]:
        statement = select(secrets).where(secrets.c.owner == owner, secrets.c.name.in_(sorted(names)))
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        return [_secret_of(row) for row in found]

    async def list(self, owner: str, page: PageRequest = FIRST_PAGE) -> Page[SealedSecret]:
        limit, after = read_request(page)
        order = (secrets.c.created_at, secrets.c.name)
        statement = page_by(select(secrets).where(secrets.c.owner == owner), order, limit, after)
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        cut = cut_page(found, limit, lambda row: (row.created_at, row.name))
        return Page(items=[_secret_of(row) for row in cut.items], next_cursor=cut.next_cursor)

    async def delete(self, owner: str, name: str) -> None:
        statement = delete(secrets).where(secrets.c.owner == owner, secrets.c.name == name)

        def work(connection: Connection) -> None:
            if connection.execute(statement).rowcount == 0:
                raise refusals.not_found("secret", name)

        await self._database.write(work)

    async def master_keys(self) -> Collection[str]:
        of_keys = select(api_keys.c.sealed_by).where(api_keys.c.sealed_by.is_not(None))
        statement = select(secrets.c.key_id).union(of_keys)
        return set(await self._database.read(lambda connection: connection.execute(statement).scalars().all()))

    async def reseal(self, reseal: Reseal) -> int:
        def work(connection: Connection) -> int:
            found = connection.execute(select(secrets)).all()
            for row in found:
                context = context_of_secret(row.owner, row.name)
                made = reseal(Sealed(context=context, sealed=row.sealed, key_id=row.key_id))
                mine = (secrets.c.owner == row.owner, secrets.c.name == row.name)
                connection.execute(update(secrets).where(*mine).values(sealed=made.sealed, key_id=made.key_id))
            signing = connection.execute(select(api_keys).where(api_keys.c.sealed_by.is_not(None))).all()
            for row in signing:
                made = reseal(Sealed(context=context_of_key(row.id), sealed=row.sealed, key_id=row.sealed_by))
                values = {"sealed": made.sealed, "sealed_by": made.key_id}
                connection.execute(update(api_keys).where(api_keys.c.id == row.id).values(**values))
            return len(found) + len(signing)

        return await self._database.write(work)


def _secret_of(row: Any) -> SealedSecret:
    return SealedSecret(
        owner=row.owner,
        name=row.name,
        sealed=row.sealed,
        key_id=row.key_id,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
