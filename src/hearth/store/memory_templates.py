"""Users' templates in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from hearth.store import refusals
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.memory_tables import Tables, page_of
from hearth.store.template_store import MAX_TEMPLATES, Template


class MemoryTemplates:
    """``TemplateStore`` in memory."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def create(self, template: Template) -> None:
        if template.owner not in self._tables.users:
            raise refusals.not_found("user", template.owner)
        self._check_name(template)
        if template.id in self._tables.templates:
            raise refusals.taken("template", template.name, field="name")
        if len(self._of(template.owner)) >= MAX_TEMPLATES:
            raise refusals.too_many_templates(MAX_TEMPLATES)
        self._tables.templates[template.id] = template

    async def resolve(self, owner: str | None, reference: str) -> Template:
        visible = self._of(owner)
        for template in visible:
            if template.id == reference:
                return template
        named = [template for template in visible if template.name == reference]
        if not named:
            raise refusals.not_found("template", reference)
        if len(named) > 1:
            raise refusals.ambiguous("template", reference)
        return named[0]

    async def list(self, owner: str | None, *, page: PageRequest = FIRST_PAGE) -> Page[Template]:
        return page_of(self._of(owner), page, lambda template: (template.created_at, template.id))

    async def replace(self, template: Template, *, known: datetime) -> Template:
        current = self._tables.templates.get(template.id)
        if current is None:
            raise refusals.not_found("template", template.id)
        if current.updated_at != known:
            raise refusals.changed_meanwhile("template", template.name)
        self._check_name(template)
        self._tables.templates[template.id] = template
        return template

    async def delete(self, template_id: str) -> None:
        if self._tables.templates.pop(template_id, None) is None:
            raise refusals.not_found("template", template_id)

    def _of(self, owner: str | None) -> Sequence[Template]:
        return [template for template in self._tables.templates.values() if owner in (None, template.owner)]

    def _check_name(self, template: Template) -> None:
        for other in self._of(template.owner):
            if other.name == template.name and other.id != template.id:
                raise refusals.taken("template", template.name, field="name")
