"""Publications in SQL."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError

from hearth.errors import HearthError
from hearth.model import Publication
from hearth.store import refusals, rows
from hearth.store.database import Database
from hearth.store.schema import publications, sandboxes

FIND = select(publications).where(publications.c.alias == bindparam("alias"))
OF_SANDBOX = (
    select(publications).where(publications.c.sandbox_id == bindparam("sandbox_id")).order_by(publications.c.port)
)


class SqlPublications:
    """``PublicationStore`` over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        row = await self._database.read(lambda connection: connection.execute(FIND, {"alias": alias}).first())
        if row is None:
            raise refusals.not_found("publication", alias)
        return rows.publication_of(row)

    async def of_sandbox(self, sandbox_id: str) -> Sequence[Publication]:
        parameters = {"sandbox_id": sandbox_id}
        found = await self._database.read(lambda connection: connection.execute(OF_SANDBOX, parameters).all())
        return [rows.publication_of(row) for row in found]

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
