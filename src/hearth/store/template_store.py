"""What every store offers for templates: users' descriptions of sandboxes to come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from hearth.store.page import FIRST_PAGE, Page, PageRequest

MAX_TEMPLATES = 100
"""Of one user."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """A description of sandboxes to come; ``spec`` is what a request for one would say, in the API's own words."""

    id: str
    owner: str
    name: str
    spec: Mapping[str, object] = field(repr=False)
    created_at: datetime
    updated_at: datetime


class TemplateStore(Protocol):
    """Users' templates. ``owner`` None stands for an administrator, who sees everybody's."""

    async def create(self, template: Template) -> None:
        """Raises Conflict when the owner has one of that name, the id is taken or there are MAX_TEMPLATES.

        Raises NotFound without the owner.
        """
        ...

    async def resolve(self, owner: str | None, reference: str) -> Template:
        """Find by id, else by name. Raises NotFound, and Conflict when a name fits templates of several owners."""
        ...

    async def list(self, owner: str | None, *, page: PageRequest = FIRST_PAGE) -> Page[Template]:
        """Those made first come first."""
        ...

    async def replace(self, template: Template, *, known: datetime) -> Template:
        """Give one of that id another name, spec and time of change, if it was last changed at ``known``.

        Raises:
            NotFound: there is none.
            Conflict: it was changed since, or its owner has another of that name.
        """
        ...

    async def delete(self, template_id: str) -> None:
        """Forget one. Raises NotFound."""
        ...
