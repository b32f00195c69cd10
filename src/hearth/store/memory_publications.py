"""Publications in memory."""

from __future__ import annotations

from collections.abc import Sequence

from hearth.model import Publication
from hearth.store import refusals
from hearth.store.memory_tables import Tables, page_of
from hearth.store.page import FIRST_PAGE, Page, PageRequest
from hearth.store.publication_store import NamedPublication


class MemoryPublications:
    """``PublicationStore`` in memory."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def create(self, publication: Publication) -> None:
        if publication.sandbox_id not in self._tables.sandboxes:
            raise refusals.not_found("sandbox", publication.sandbox_id)
        if publication.alias in self._tables.publications:
            raise refusals.alias_taken(publication.alias)
        if self._at(publication.sandbox_id, publication.port) is not None:
            raise refusals.published(publication.sandbox_id, publication.port)
        self._tables.publications[publication.alias] = publication

    async def find(self, alias: str) -> Publication:
        try:
            return self._tables.publications[alias]
        except KeyError:
            raise refusals.not_found("publication", alias) from None

    async def of_sandbox(self, sandbox_id: str) -> Sequence[Publication]:
        found = [each for each in self._tables.publications.values() if each.sandbox_id == sandbox_id]
        return sorted(found, key=lambda publication: publication.port)

    async def list(self, owner: str | None, *, page: PageRequest = FIRST_PAGE) -> Page[NamedPublication]:
        found = []
        for each in self._tables.publications.values():
            sandbox = self._tables.sandboxes[each.sandbox_id]
            if owner in (None, sandbox.owner):
                _, user = self._tables.users[sandbox.owner]
                found.append(NamedPublication(publication=each, sandbox=sandbox.spec.name, owner=user.name))
        return page_of(found, page, lambda named: (named.publication.created_at, named.publication.alias))

    async def delete(self, sandbox_id: str, port: int) -> Publication:
        found = self._at(sandbox_id, port)
        if found is None:
            raise refusals.not_found("publication", f"{sandbox_id}:{port}")
        del self._tables.publications[found.alias]
        return found

    def _at(self, sandbox_id: str, port: int) -> Publication | None:
        found = (
            each for each in self._tables.publications.values() if (each.sandbox_id, each.port) == (sandbox_id, port)
        )
        return next(found, None)
