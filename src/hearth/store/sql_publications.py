"""Publications in SQL."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError

from hearth.errors import HearthError
from hearth.model import Publication
from hearth.store import refusals, rows
from hearth.store.database import Database
from hearth.store.host_store import ALONE
from hearth.store.page import FIRST_PAGE, Page, PageRequest
from hearth.store.paging import cut_page, read_request
from hearth.store.publication_store import NamedPublication
from hearth.store.schema import publications, sandboxes, users
from hearth.store.sql_paging import page_by

FIND = select(publications).where(publications.c.alias == bindparam("alias"))
HERE = FIND.join(sandboxes, sandboxes.c.id == publications.c.sandbox_id).where(sandboxes.c.host == bindparam("host"))
OF_SANDBOX = (
    select(publications).where(publications.c.sandbox_id == bindparam("sandbox_id")).order_by(publications.c.port)
)

NAMED = (
    select(publications, sandboxes.c.name.label("sandbox"), users.c.name.label("owner"))
    .join(sandboxes, sandboxes.c.id == publications.c.sandbox_id)
    .join(users, users.c.id == sandboxes.c.owner)
)


class SqlPublications:
    """``PublicationStore`` over a database."""

    def __init__(self, database: Database, host: str = ALONE) -> None:
        self._database = database
        self._host = host

    async def create(self, publication: Publication) -> None:
        row = rows.publication_row(publication)

        def work(connection: Connection) -> None:
            try:
                with connection.begin_nested():
                    connection.execute(insert(publications), row)
            except IntegrityError as error:
                raise _why_refused(connection, publication) from error

        await self._database.write(work)

    async def find(self, alias: str) -> Publication:
        parameters = {"alias": alias, "host": self._host}
        row = await self._database.read(lambda connection: connection.execute(HERE, parameters).first())
        if row is None:
            raise refusals.not_found("publication", alias)
        return rows.publication_of(row)

    async def of_sandbox(self, sandbox_id: str) -> Sequence[Publication]:
        parameters = {"sandbox_id": sandbox_id}
        found = await self._database.read(lambda connection: connection.execute(OF_SANDBOX, parameters).all())
        return [rows.publication_of(row) for row in found]

    async def list(self, owner: str | None, *, page: PageRequest = FIRST_PAGE) -> Page[NamedPublication]:
        limit, after = read_request(page)
        here = NAMED.where(sandboxes.c.host == self._host)
        chosen = here if owner is None else here.where(sandboxes.c.owner == owner)
        statement = page_by(chosen, (publications.c.created_at, publications.c.alias), limit, after)
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        cut = cut_page(found, limit, lambda row: (row.created_at, row.alias))
        named = [
            NamedPublication(publication=rows.publication_of(row), sandbox=row.sandbox, owner=row.owner)
            for row in cut.items
        ]
        return Page(items=named, next_cursor=cut.next_cursor)

    async def delete(self, sandbox_id: str, port: int) -> Publication:
        statement = (
            delete(publications)
            .where(publications.c.sandbox_id == sandbox_id, publications.c.port == port)
            .returning(*publications.c)
        )
        row = await self._database.write(lambda connection: connection.execute(statement).first())
        if row is None:
            raise refusals.not_found("publication", f"{sandbox_id}:{port}")
        return rows.publication_of(row)


def _why_refused(connection: Connection, publication: Publication) -> HearthError:
    known = select(sandboxes.c.id).where(sandboxes.c.id == publication.sandbox_id)
    if connection.execute(known).first() is None:
        return refusals.not_found("sandbox", publication.sandbox_id)
    if connection.execute(FIND, {"alias": publication.alias}).first() is not None:
        return refusals.alias_taken(publication.alias)
    return refusals.published(publication.sandbox_id, publication.port)
