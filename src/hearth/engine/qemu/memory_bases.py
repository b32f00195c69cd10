"""The memory that clones start from: one sealed copy of each for all VMMs of this daemon, and for the next clone."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path

from hearth.engine.manifest import MemoryKind, refused
from hearth.engine.qemu.memory_map import NAME_PREFIX
from hearth.engine.snapshot import StoredSnapshot
from hearth.host.sealed import ContentDamaged, sealed_copy
from hearth.host.threads import on_own_thread

KEPT = 8
"""So many copies stay open for clones to come; a copy somebody maps stays in memory in any case."""


class MemoryBases:
    """Sealed copies by the id of their snapshot; loaded once however many ask, the least recently used go first."""

    def __init__(self, *, kept: int = KEPT) -> None:
        self._kept = kept
        self._descriptors: OrderedDict[str, int] = OrderedDict()
        self._loading: dict[str, asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def open(self, snapshot: StoredSnapshot, *, keep: bool) -> AsyncIterator[int]:
        """Give a descriptor of the snapshot's full memory, verified, for the length of the context.

        Args:
            keep: for a snapshot that others start from, too.

        Raises:
            SnapshotRefused: the memory is damaged.
        """
        lock = self._loading.setdefault(snapshot.id, asyncio.Lock())
        async with lock:
            kept = self._descriptors.get(snapshot.id)
            if kept is None:
                descriptor = await on_own_thread("load memory", lambda: _load(snapshot), discard=os.close)
            else:
                descriptor = os.dup(kept)
                self._descriptors.move_to_end(snapshot.id)
        try:
            if kept is None and keep:
                self._keep(snapshot.id, os.dup(descriptor))
            yield descriptor
        finally:
            os.close(descriptor)

    def drop(self, snapshot_id: str) -> None:
        """Let go of a snapshot's copy; VMMs that map it keep it."""
        self._loading.pop(snapshot_id, None)
        if (descriptor := self._descriptors.pop(snapshot_id, None)) is not None:
            os.close(descriptor)

    def close(self) -> None:
        """Let go of all copies."""
        for snapshot_id in list(self._descriptors):
            self.drop(snapshot_id)

    def _keep(self, snapshot_id: str, descriptor: int) -> None:
        self.drop(snapshot_id)
        self._descriptors[snapshot_id] = descriptor
        while len(self._descriptors) > self._kept:
            self.drop(next(iter(self._descriptors)))


def _load(snapshot: StoredSnapshot) -> int:
    if snapshot.manifest.memory.kind is not MemoryKind.FULL:
        raise refused(snapshot.id, "another snapshot is relative to its memory, which is not a full one")
    source = _open(snapshot.memory, snapshot.id)
    try:
        return sealed_copy(
            NAME_PREFIX + snapshot.id,
            source,
            snapshot.manifest.memory_bytes,
            block_hash=snapshot.memory_record.block_hash,
        )
    except ContentDamaged as error:
        raise refused(snapshot.id, f"its memory is damaged: {error.details}") from error
    finally:
        os.close(source)


def _open(path: Path, snapshot_id: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise refused(snapshot_id, f"{path.name} cannot be read: {error.strerror}") from error
