"""Users' templates in SQL."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from hearth.store import refusals
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.database import Database
from hearth.store.paging import cut_page, read_request
from hearth.store.schema import templates, users
from hearth.store.sql_paging import page_of
from hearth.store.template_store import MAX_TEMPLATES, Template


class SqlTemplates:
    """``TemplateStore`` over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, template: Template) -> None:
        def work(connection: Connection) -> None:
            # Locked: of two that would each be the last one allowed, PostgreSQL lets the second see the first.
            owner = select(users.c.id).where(users.c.id == template.owner).with_for_update()
            if connection.execute(owner).first() is None:
                raise refusals.not_found("user", template.owner)
            try:
                with connection.begin_nested():
                    connection.execute(insert(templates), _row_of(template))
            except IntegrityError as error:
                raise refusals.taken("template", template.name, field="name") from error
            count = select(func.count()).select_from(templates).where(templates.c.owner == template.owner)
            if (connection.scalar(count) or 0) > MAX_TEMPLATES:
                raise refusals.too_many_templates(MAX_TEMPLATES)

        await self._database.write(work)

    async def resolve(self, owner: str | None, reference: str) -> Template:
        mine = _of(owner)

        def work(connection: Connection) -> Template:
            row = connection.execute(mine.where(templates.c.id == reference)).first()
            if row is not None:
                return _template_of(row)
            named = connection.execute(mine.where(templates.c.name == reference).limit(2)).all()
            if not named:
                raise refusals.not_found("template", reference)
            if len(named) > 1:
                raise refusals.ambiguous("template", reference)
            return _template_of(named[0])

        return await self._database.read(work)

    async def list(self, owner: str | None, *, page: PageRequest = FIRST_PAGE) -> Page[Template]:
        limit, after = read_request(page)
        statement = page_of(_of(owner), templates, limit, after)
        found = await self._database.read(lambda connection: connection.execute(statement).all())
        cut = cut_page(found, limit, lambda row: (row.created_at, row.id))
        return Page(items=[_template_of(row) for row in cut.items], next_cursor=cut.next_cursor)

    async def replace(self, template: Template, *, known: datetime) -> Template:
        statement = (
            update(templates)
            .where(templates.c.id == template.id, templates.c.updated_at == known)
            .values(name=template.name, spec=dict(template.spec), updated_at=template.updated_at)
            .returning(*templates.c)
        )

        def work(connection: Connection) -> Template:
            try:
                with connection.begin_nested():
                    row = connection.execute(statement).first()
            except IntegrityError as error:
                raise refusals.taken("template", template.name, field="name") from error
            if row is not None:
                return _template_of(row)
            if connection.execute(select(templates.c.id).where(templates.c.id == template.id)).first() is None:
                raise refusals.not_found("template", template.id)
            raise refusals.changed_meanwhile("template", template.name)

        return await self._database.write(work)

    async def delete(self, template_id: str) -> None:
        statement = delete(templates).where(templates.c.id == template_id)

        def work(connection: Connection) -> None:
            if connection.execute(statement).rowcount == 0:
                raise refusals.not_found("template", template_id)

        await self._database.write(work)


def _of(owner: str | None) -> Select[Any]:
    return select(templates) if owner is None else select(templates).where(templates.c.owner == owner)


def _row_of(template: Template) -> dict[str, object]:
    return {
        "id": template.id,
        "owner": template.owner,
        "name": template.name,
        "spec": dict(template.spec),
        "created_at": template.created_at,
        "updated_at": template.updated_at,
    }


def _template_of(row: Any) -> Template:
    return Template(
        id=row.id,
        owner=row.owner,
        name=row.name,
        spec=row.spec,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
