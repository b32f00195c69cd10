"""What lies in the snapshots directory, who needs it, and what goes: templates by age and space, the rest when nobody
needs it any more.

snapshots/
  tpl-<hash>     a template; see ``hearth.control.templates``
  stop-<id>      the memory of a stopped sandbox; ``hearth.control.sleep`` makes and removes it
  fork-<random>  what the copies made by one fork lie over
  save-<random>  a sandbox whose disk is being saved as an image
  ckp-<random>   a checkpoint, known to the store

Nobody deletes what somebody holds: whoever takes a snapshot up holds it until the store knows of its use.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import structlog

from hearth.control.eviction import MachineTemplate, unwanted
from hearth.control.images import Images
from hearth.control.pages import every
from hearth.control.templates import PREFIX as TEMPLATE_PREFIX
from hearth.control.templates import is_retired
from hearth.engine.base import SleepingEngine
from hearth.engine.layers import Inventory, closure, deletable
from hearth.engine.manifest import LayerKind, Manifest
from hearth.engine.snapshot import CONSUMED_SUFFIX, discard, drop_memory, load, load_all, sweep
from hearth.errors import HearthError
from hearth.host import files
from hearth.host.threads import on_own_thread
from hearth.host.waiting import until_done
from hearth.jobs.bringup import MEMORY_PREFIX, Workshop
from hearth.model import Snapshot, SnapshotState
from hearth.store.base import SnapshotNeeded, Store

log = structlog.get_logger(__name__)

CHECKPOINT_PREFIX, FORK_PREFIX, SAVE_PREFIX = "ckp-", "fork-", "save-"
OURS = (CHECKPOINT_PREFIX, FORK_PREFIX, SAVE_PREFIX, TEMPLATE_PREFIX)
"""What may lie below others; anything else in the directory keeps nothing from going."""
MIB = 1024 * 1024


class Shelf:
    """Knows every snapshot of this data directory. One sweep at a time.

    Args:
        in_use: tells the ids of templates that machines without a row run on.
    """

    def __init__(
        self, *, store: Store, workshop: Workshop, images: Images, in_use: Callable[[], Collection[str]]
    ) -> None:
        self._store = store
        self._workshop = workshop
        self._images = images
        self._in_use = in_use
        self._root = workshop.data.snapshots
        self._sweeping = asyncio.Lock()
        self._pins: Counter[str] = Counter()
        self._touched: set[str] = set()
        """What was held at any time since the sweep under way began: what that knows of it may be old."""
        self._removals: dict[str, asyncio.Task[None]] = {}
        self._tidying: asyncio.Task[None] | None = None
        self._untidy = False

    @contextlib.contextmanager
    def pin(self, snapshot_id: str) -> Iterator[None]:
        """Keep a snapshot that is held already, or about to be made, for the length of the context."""
        self._pins[snapshot_id] += 1
        self._touched.add(snapshot_id)
        try:
            yield
        finally:
            self._pins[snapshot_id] -= 1
            if not self._pins[snapshot_id]:
                del self._pins[snapshot_id]

    @contextlib.asynccontextmanager
    async def hold(self, snapshot_id: str) -> AsyncIterator[None]:
        """As ``pin``, of a snapshot that may be going at this moment: inside, it is there or it is gone."""
        while (removal := self._removals.get(snapshot_id)) is not None:
            await asyncio.wait([removal])
        with self.pin(snapshot_id):
            yield

    def is_held(self, snapshot_id: str) -> bool:
        """Tell whether somebody takes it up now."""
        return snapshot_id in self._pins or snapshot_id in self._in_use()

    async def start(self) -> None:
        """Sweep what crashed captures and wakes have left; after every sandbox was looked after, before any is used."""
        sandboxes = {sandbox.id for sandbox in await every(lambda page: self._store.sandboxes.list(None, page=page))}
        for checkpoint in await self._checkpoints():
            if checkpoint.state is SnapshotState.CREATING:
                log.info("unfinished checkpoint removed", snapshot=checkpoint.id)
                await self._store.snapshots.transition(checkpoint.id, (checkpoint.state,), SnapshotState.DELETING)
        swept = await on_own_thread("sweep snapshots", lambda: _sweep_leavings(self._root, sandboxes))
        if swept:
            log.info("leavings of snapshots removed", count=len(swept))
        await self.sweep()

    def tidy(self) -> None:
        """Sweep soon, beside whatever the caller does next."""
        self._untidy = True
        if self._tidying is None or self._tidying.done():
            self._tidying = asyncio.create_task(self._tidy(), name="tidy snapshots")

    async def close(self) -> None:
        """End a sweep under way; what it has not deleted goes with the next one."""
        if self._tidying is not None:
            self._tidying.cancel()
            await asyncio.wait([self._tidying])

    async def sweep(self) -> Sequence[str]:
        """Delete what nobody needs, and tell what it was."""
        async with self._sweeping:
            self._touched = set(self._pins)
            manifests, damaged = await on_own_thread("read snapshots", lambda: load_all(self._root))
            checkpoints = {row.id: row for row in await self._checkpoints()}
            origins = await self._store.sandboxes.origins()
            found = await self._templates(manifests, origins, checkpoints)
            doomed = {id_ for id_ in (*manifests, *damaged) if _is_unwanted(id_, checkpoints)} | self._evictable(found)
            doomed |= {id_ for id_ in damaged if is_retired(self._root / id_)}
            machines = {origin: (origin,) for origin in origins}
            # The memory of a stopped sandbox needs nothing that the origin of its disk does not.
            unreadable = [id_ for id_ in damaged if id_.startswith(OURS)]
            inventory = Inventory(manifests=manifests, unreadable=unreadable, machines=machines)
            gone = []
            for snapshot_id in deletable(doomed, inventory):
                if snapshot_id not in closure({*self._touched, *self._in_use()}, manifests):
                    await self.remove(snapshot_id)
                    gone.append(snapshot_id)
            await self._forget_deleted(checkpoints)
            await self._drop_memories(id_ for id_ in manifests if id_ not in gone)
        return gone

    async def _drop_memories(self, snapshots: Iterable[str]) -> None:
        """Delete the memory below copies that have all started: from then on they need the disk alone."""
        for snapshot_id in snapshots:
            if snapshot_id.startswith(FORK_PREFIX) and snapshot_id not in self._touched:
                work = functools.partial(drop_memory, self._root / snapshot_id)
                try:
                    if await on_own_thread("drop memory", work):
                        log.info("memory below copies dropped", snapshot=snapshot_id)
                except HearthError as error:
                    log.warning("memory below copies not dropped", snapshot=snapshot_id, error=str(error))

    async def remove_unneeded(self, snapshot_id: str) -> bool:
        """Delete a snapshot unless something needs it or somebody takes it up meanwhile; tells whether it is gone."""
        async with self._sweeping:
            self._touched = set(self._pins)
            manifests, _ = await on_own_thread("read snapshots", lambda: load_all(self._root))
            needed = await self.needed_by(snapshot_id)
            if needed or snapshot_id in closure({*self._touched, *self._in_use()}, manifests):
                return False
            await self.remove(snapshot_id)
        return True

    async def remove(self, snapshot_id: str) -> None:
        """Delete a snapshot that nobody needs; a cancelled caller waits for the end of that."""
        removal = asyncio.create_task(self._remove(snapshot_id), name=f"remove {snapshot_id}")
        self._removals[snapshot_id] = removal
        removal.add_done_callback(lambda _: self._removals.pop(snapshot_id, None))
        await until_done(removal)
        removal.result()

    async def templates(self) -> Sequence[MachineTemplate]:
        """Give all templates, the oldest first."""
        manifests, _ = await on_own_thread("read snapshots", lambda: load_all(self._root))
        checkpoints = {row.id: row for row in await self._checkpoints()}
        return await self._templates(manifests, await self._store.sandboxes.origins(), checkpoints)

    async def images(self) -> set[str]:
        """Give the ids of the images that snapshots lie over, whatever they are there for."""
        manifests, _ = await on_own_thread("read snapshots", lambda: load_all(self._root))
        found = {manifest.rootfs.id for manifest in manifests.values()}
        layers = [layer for manifest in manifests.values() for layer in manifest.disk.layers]
        return found | {layer.id for layer in layers if layer.kind is LayerKind.IMAGE}

    async def needed_by(self, snapshot_id: str) -> Sequence[str]:
        """Tell the names of the sandboxes and checkpoints that cannot do without a snapshot, in words."""
        manifests, _ = await on_own_thread("read snapshots", lambda: load_all(self._root))
        found = [
            f"sandbox {sandbox.spec.name}"
            for sandbox in await every(lambda page: self._store.sandboxes.list(None, page=page))
            if sandbox.origin is not None and snapshot_id in closure([sandbox.origin], manifests)
        ]
        found += [
            f"checkpoint {row.name}"
            for row in await self._checkpoints()
            if row.id != snapshot_id and snapshot_id in closure([row.id], manifests)
        ]
        return found

    async def _remove(self, snapshot_id: str) -> None:
        await on_own_thread("remove snapshot", lambda: discard(self._root / snapshot_id))
        if isinstance(self._workshop.engine, SleepingEngine):
            await self._workshop.engine.forget(snapshot_id)
        log.info("snapshot removed", snapshot=snapshot_id)

    async def _tidy(self) -> None:
        while self._untidy:
            self._untidy = False
            try:
                await self.sweep()
            except (HearthError, OSError) as error:
                log.error("snapshots not swept", error=str(error))

    async def _forget_deleted(self, checkpoints: Mapping[str, Snapshot]) -> None:
        """Forget the checkpoints whose files are gone, children before parents."""
        waiting = [
            row.id
            for row in checkpoints.values()
            if row.state is SnapshotState.DELETING and not (self._root / row.id).exists()
        ]
        before = -1
        while len(waiting) != before:
            before = len(waiting)
            for snapshot_id in list(waiting):
                with contextlib.suppress(SnapshotNeeded):
                    await self._store.snapshots.delete(snapshot_id, (SnapshotState.DELETING,))
                    waiting.remove(snapshot_id)

    async def _templates(
        self, manifests: Mapping[str, Manifest], origins: Mapping[str, int], checkpoints: Mapping[str, Snapshot]
    ) -> Sequence[MachineTemplate]:
        needed = closure([*origins, *(id_ for id_, row in checkpoints.items() if _is_kept(row))], manifests)
        catalogue = await self._images.catalogue()
        found = []
        for snapshot_id, manifest in manifests.items():
            if not snapshot_id.startswith(TEMPLATE_PREFIX):
                continue
            found.append(
                MachineTemplate(
                    id=snapshot_id,
                    image=catalogue.name(manifest.rootfs.id),
                    cpus=manifest.cpus,
                    memory_mib=manifest.memory_mib,
                    size_bytes=await asyncio.to_thread(_size_bytes, self._root / snapshot_id),
                    uses=sum(count for id_, count in origins.items() if snapshot_id in closure([id_], manifests)),
                    created_at=manifest.created_at,
                    used_at=await asyncio.to_thread(_used_at, self._root / snapshot_id, manifest.created_at),
                    is_needed=snapshot_id in needed,
                    is_stale=is_retired(self._root / snapshot_id)
                    or not catalogue.makes(manifest.stamp, manifest.rootfs.id),
                )
            )
        return sorted(found, key=lambda template: template.created_at)

    def _evictable(self, templates: Sequence[MachineTemplate]) -> set[str]:
        settings = self._workshop.settings
        free_mib = shutil.disk_usage(self._root).free // MIB
        return set(
            unwanted(
                templates,
                now=self._workshop.clock.now(),
                max_age_s=settings.template_max_age_s,
                max_bytes=settings.template_max_mib * MIB,
                missing_bytes=(settings.min_free_mib - free_mib) * MIB,
            )
        )

    async def _checkpoints(self) -> Sequence[Snapshot]:
        return await every(lambda page: self._store.snapshots.list(None, page=page))


def _is_kept(checkpoint: Snapshot) -> bool:
    return checkpoint.state is not SnapshotState.DELETING


def _is_unwanted(snapshot_id: str, checkpoints: Mapping[str, Snapshot]) -> bool:
    """Tell whether it is only there as long as something else needs it; templates are judged by policy.

    The memory of a stopped sandbox goes with the sandbox, and what we did not make is not ours to delete.
    """
    if snapshot_id.startswith(CHECKPOINT_PREFIX):
        return snapshot_id not in checkpoints or not _is_kept(checkpoints[snapshot_id])
    return snapshot_id.startswith((FORK_PREFIX, SAVE_PREFIX))


def _sweep_leavings(root: Path, sandboxes: Collection[str]) -> list[str]:
    """Delete unfinished work, memory that was used up and memory of sandboxes that are no more."""
    swept = sweep(root)
    for path in sorted(root.glob(f"*{CONSUMED_SUFFIX}")):
        files.remove_tree(path)
        swept.append(path.name)
    for path in sorted(root.glob(f"{MEMORY_PREFIX}*")):
        if path.name.removeprefix(MEMORY_PREFIX) not in sandboxes:
            discard(path)
            swept.append(path.name)
    return swept


def _size_bytes(directory: Path) -> int:
    try:
        return load(directory).size_bytes
    except (HearthError, OSError):
        return 0  # it went at this moment


def _used_at(directory: Path, otherwise: datetime) -> datetime:
    try:
        return datetime.fromtimestamp(directory.stat().st_mtime, UTC)
    except OSError:
        return otherwise
