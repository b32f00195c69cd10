"""What every store offers for publications: which port of which sandbox everybody reaches under which alias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hearth.model import Publication
from hearth.store.page import FIRST_PAGE, Page, PageRequest


@dataclass(frozen=True, kw_only=True)
class NamedPublication:
    """A publication, with the names of its sandbox and of that sandbox's owner."""

    publication: Publication
    sandbox: str
    owner: str


class PublicationStore(Protocol):
    """Publications. With a sandbox's row its publications go."""

    async def create(self, publication: Publication) -> None:
        """Remember one.

        Raises:
            NotFound: no such sandbox.
            AliasTaken: somebody has that alias.
            Conflict: the port of that sandbox is published already.
        """
        ...

    async def find(self, alias: str) -> Publication:
        """Give what an alias stands for. Raises NotFound."""
        ...

    async def of_sandbox(self, sandbox_id: str) -> Sequence[Publication]:
        """Give a sandbox's, by port."""
        ...

    async def list(self, owner: str | None, *, page: PageRequest = FIRST_PAGE) -> Page[NamedPublication]:
        """Give those of one owner's sandboxes, of everybody's without one; oldest first."""
        ...

    async def delete(self, sandbox_id: str, port: int) -> Publication:
        """Forget one and give it. Raises NotFound."""
        ...
