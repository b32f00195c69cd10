"""What every store offers for publications: which port of which sandbox everybody reaches under which alias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from hearth.model import Publication


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

    async def delete(self, sandbox_id: str, port: int) -> Publication:
        """Forget one and give it. Raises NotFound."""
        ...
