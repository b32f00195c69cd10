"""What every store offers for volumes: whose they are, and where they are in sandboxes.

Who *may* use a volume is not told here but by ``hearth.volume.locks``: docs/decisions/volumes-wiring.md.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from hearth.model import NamedVolume, VolumePlacement, VolumeState
from hearth.store.page import FIRST_PAGE, Page, PageRequest


class VolumeStore(Protocol):
    """Volumes and their placements. ``owner`` None stands for an administrator, who sees everybody's."""

    async def create(self, volume: NamedVolume) -> None:
        """Raises Conflict when the owner has one of that name or the id is taken, NotFound without the owner."""
        ...

    async def get(self, volume_id: str) -> NamedVolume: ...

    async def resolve(self, owner: str | None, reference: str) -> NamedVolume:
        """Find by id, else by name. Raises NotFound, and Conflict when a name fits volumes of several owners."""
        ...

    async def list(
        self, owner: str | None, *, states: Collection[VolumeState] = (), page: PageRequest = FIRST_PAGE
    ) -> Page[NamedVolume]:
        """Those in one of ``states`` (none given: in any)."""
        ...

    async def transition(
        self, volume_id: str, expected: Collection[VolumeState], new: VolumeState, *, size_mib: int | None = None
    ) -> NamedVolume:
        """Compare-and-set of the state; ``size_mib`` replaces the stored one unless it is None.

        Raises:
            NotFound: no such volume.
            Conflict: the state is not one of ``expected``.
        """
        ...

    async def delete(self, volume_id: str, expected: Collection[VolumeState]) -> None:
        """Forget it if its state is one of ``expected``.

        Raises:
            NotFound: no such volume.
            Conflict: it is placed in a sandbox, or the state is not one of ``expected``.
        """
        ...

    async def place(self, placement: VolumePlacement) -> None:
        """Note where a volume is in a sandbox; with the sandbox's row its placements go.

        Raises:
            NotFound: no such sandbox or volume.
            Conflict: the volume is in that sandbox already, or the slot is taken.
        """
        ...

    async def displace(self, sandbox_id: str, volume_id: str) -> None:
        """Forget a placement; one that is not there is fine."""
        ...

    async def in_sandbox(self, sandbox_id: str) -> Sequence[VolumePlacement]:
        """Give what is in a sandbox, by slot."""
        ...

    async def sandboxes_of(self, volume_id: str) -> Sequence[VolumePlacement]:
        """Give where a volume is, the longest attached first."""
        ...
