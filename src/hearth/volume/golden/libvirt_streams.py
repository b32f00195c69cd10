"""Golden volumes in pools that only libvirt reaches: on another host, or of a kind that is no directory.

Such a pool keeps no words of ours and renames nothing. So what is ours is written down in our own directory, before it
is made; a volume is made under its own name, is not told of before it is whole, and is never replaced.

state/<name>.json    what is known of the volume <name>
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import msgspec
import structlog

from hearth.errors import Conflict
from hearth.host import files, locks
from hearth.host.libvirt import Libvirt, LibvirtFailed
from hearth.host.libvirt_binding import NO_VOLUME, VOLUME_EXISTS, StoragePool
from hearth.volume.golden.base import (
    IMAGE_TAG,
    JOB_TAG,
    NAME_FIELD,
    CannotClone,
    CloneAbility,
    GoldenImage,
    GoldenVolume,
    Living,
    OnBytes,
    Target,
    TargetSpec,
    check_fits,
    ignore_bytes,
    no_such_volume,
    taken,
    would_shrink,
)
from hearth.volume.golden.domains import Domains
from hearth.volume.golden.libvirt_pool import (
    OF_FILES,
    PoolFacts,
    SeenVolume,
    in_pool,
    lying_over,
    refresh,
    remove_volume,
    seen_volume,
    volume_xml,
)
from hearth.volume.golden.libvirt_upload import upload
from hearth.volume.golden.populate import populate
from hearth.volume.names import check_volume_name

log = structlog.get_logger(__name__)

T = TypeVar("T")

LOCK_WAIT_S = 600.0
WIPE_TIMEOUT_S = 3600.0
SUFFIX = ".json"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a volume. ``key`` is libvirt's own name for it, empty until it was made."""

    name: str
    format: str
    size_bytes: int
    job: str
    image: str
    key: str = ""
    is_whole: bool = False
    tags: dict[str, str] = {}


class LibvirtStreams:
    """Implements ``hearth.volume.golden.base.GoldenBackend`` for one pool.

    Args:
        state: a directory of ours for this pool.
    """

    name = "libvirt"

    def __init__(self, libvirt: Libvirt, pool: PoolFacts, state: Path) -> None:
        self._libvirt = libvirt
        self._domains = Domains(libvirt)
        self._pool = pool.name
        self._is_of_files = pool.kind in OF_FILES
        self._is_here = libvirt.is_local
        self._state, self._lock = state, state / "lock"

    async def create(self, spec: TargetSpec, image: GoldenImage) -> Target:
        """Make an empty volume under its own name; it is not ours to tell of before it is published."""
        check_volume_name(spec.name, what=NAME_FIELD)
        check_fits(spec, image)
        image_format = image.format if self._is_of_files else "raw"
        record = Record(
            name=spec.name,
            format=image_format,
            size_bytes=spec.size_bytes,
            job=spec.job,
            image=image.key,
            tags={**spec.tags, JOB_TAG: spec.job, IMAGE_TAG: image.key},
        )
        xml = volume_xml(spec.name, spec.size_bytes, image_format, is_sparse=self._is_of_files)
        async with self._alone():
            await self._require_new(spec.name)
            self._write(record)
            try:
                made = await self._in_pool(lambda pool: seen_volume(pool.createXML(xml, 0)), again=False)
            except LibvirtFailed as error:
                self._forget(spec.name)
                raise taken(spec.name, "exists") if error.number == VOLUME_EXISTS else error from error
            self._write(msgspec.structs.replace(record, key=made.key))
        return Target(spec=spec, path=made.path, handle=made.key, is_zero=self._is_of_files, format=image_format)

    async def cloning(self, image_key: str | None) -> CloneAbility:
        """Tell that nothing can."""
        del image_key
        return CloneAbility(can_clone=False, has_base=False, why=self._why_no_clone())

    async def clone(self, spec: TargetSpec, image: GoldenImage, on_bytes: OnBytes = ignore_bytes) -> Target:
        """Refuse: nothing is shared with what is here."""
        del on_bytes
        check_volume_name(spec.name, what=NAME_FIELD)
        check_fits(spec, image)
        raise CannotClone(self._why_no_clone())

    def _why_no_clone(self) -> str:
        return f"volumes of pool {self._pool!r} are sent to libvirt: copies"

    async def fill(self, image: GoldenImage, target: Target, on_bytes: OnBytes) -> None:
        """Send the image: as it is where the volume is a file, else what its disk holds, zeros to the end included."""
        check_fits(target.spec, image)
        name, total = target.spec.name, image.virtual_size_bytes

        def told(done: int, of: int) -> None:
            on_bytes(min(total, done * total // max(of, 1)), total)

        told(0, 1)
        if self._is_of_files or image.format == "raw":
            await self._send(name, image.path, told, size_bytes=target.spec.size_bytes)
        else:
            with tempfile.NamedTemporaryFile(dir=self._state, prefix="send-", suffix=files.TEMPORARY_SUFFIX) as file:
                files.require_free(self._state, image.size_bytes)
                await asyncio.to_thread(file.truncate, total)
                plain = replace(target, path=Path(file.name), is_zero=True)
                await populate(image, plain, ignore_bytes)
                await self._send(name, Path(file.name), told, size_bytes=target.spec.size_bytes)
        if self._is_of_files:
            # The file now ends where what was sent did.
            await refresh(self._libvirt, self._pool)
            await self._enlarge(name, target.spec.size_bytes)
        on_bytes(total, total)

    async def _send(self, name: str, path: Path, on_bytes: OnBytes, *, size_bytes: int) -> None:
        padded = None if self._is_of_files else size_bytes
        await upload(self._libvirt.uri, self._pool, name, path, on_bytes, padded_to_bytes=padded)

    async def publish(self, target: Target, *, replace: bool = False) -> GoldenVolume:
        """Write down that it is whole; there is nothing it could replace."""
        del replace
        name = target.spec.name
        async with self._alone():
            record, seen = self._read(name), await self._seen(name)
            if record is None or seen is None or record.key != target.handle or seen.key != target.handle:
                raise taken(name, "is not the one that was made")
            if record.is_whole:
                raise taken(name, "exists")
            await refresh(self._libvirt, self._pool)
            whole = msgspec.structs.replace(record, is_whole=True)
            self._write(whole)
        log.info("volume published", pool=self._pool, volume=name, job=target.spec.job, format=target.format)
        return _volume(whole, seen, is_here=self._is_here)

    async def discard(self, target: Target) -> None:
        """Remove it, if it was not published."""
        async with self._alone():
            record = self._read(target.spec.name)
            if record is not None and record.key == target.handle and not record.is_whole:
                await self._remove(record)

    async def list(self) -> Sequence[GoldenVolume]:
        """Tell of every volume that is whole and still the one we made."""
        records = {record.name: record for record in self._records() if record.is_whole}
        there = await self._in_pool(lambda pool: [seen_volume(volume) for volume in pool.listAllVolumes(0)])
        found = [(records[seen.name], seen) for seen in there if seen.name in records]
        return sorted(
            (_volume(*pair, is_here=self._is_here) for pair in found if pair[0].key == pair[1].key),
            key=lambda each: each.name,
        )

    async def describe(self, name: str) -> GoldenVolume:
        """Ask our record, and libvirt whether it is still true."""
        check_volume_name(name, what=NAME_FIELD)
        record, seen = self._read(name), await self._seen(name)
        if record is None or seen is None or not record.is_whole or record.key != seen.key:
            raise no_such_volume(name)
        return _volume(record, seen, is_here=self._is_here)

    async def is_in_use(self, name: str) -> bool:
        """Ask for libvirt's domains, and volumes that lie over it."""
        volume = await self.describe(name)
        return bool(await self._over(volume) or await self._domains.users(volume.path))

    async def grow(self, name: str, size_bytes: int) -> GoldenVolume:
        """Let libvirt make the file larger; a device would show what somebody else left behind its end."""
        check_volume_name(name, what=NAME_FIELD)
        async with self._alone():
            before = await self.describe(name)
            if size_bytes < before.size_bytes:
                raise would_shrink(name, size_bytes, before.size_bytes)
            if size_bytes == before.size_bytes:
                return before
            await self._require_free(before)
            if not self._is_of_files:
                raise Conflict(
                    "volumes of this pool do not grow",
                    details=f"pool {self._pool!r} has devices whose new part would not read as zeros",
                    resolution="make a larger volume and copy what you need",
                    field=NAME_FIELD,
                )
            await self._enlarge(name, size_bytes)
            record = self._read(name)
            if record is not None:
                self._write(msgspec.structs.replace(record, size_bytes=size_bytes))
        return await self.describe(name)

    async def delete(self, name: str) -> None:
        """Remove volume and record; what was a device is wiped."""
        check_volume_name(name, what=NAME_FIELD)
        async with self._alone():
            record, seen = self._read(name), await self._seen(name)
            if seen is None:
                self._forget(name)
                return
            if record is None or record.key != seen.key:
                raise taken(name, "is none of ours")
            await self._require_free(_volume(record, seen, is_here=self._is_here))
            await self._remove(record)

    async def sweep(self, living: Living) -> Sequence[str]:
        """Remove what makers whose job is over left."""
        over, swept = {record.job for record in self._records() if not record.is_whole} - set(await living()), []
        async with self._alone():
            for record in self._records():
                if not record.is_whole and record.job in over:
                    swept.append(record.name)
                    await self._remove(record)
        return swept

    async def _remove(self, record: Record) -> None:
        seen = await self._seen(record.name)
        if seen is not None and record.key == seen.key:
            await self._libvirt.call(
                lambda connection: remove_volume(connection.storagePoolLookupByName(self._pool), record.name),
                timeout_s=WIPE_TIMEOUT_S,
            )
        elif seen is not None:
            # We died between asking for it and hearing of it, or it is somebody else's: nobody can tell.
            log.warning("a volume is left that may be ours", pool=self._pool, volume=record.name)
        self._forget(record.name)

    async def _require_new(self, name: str) -> None:
        seen, record = await self._seen(name), self._read(name)
        if seen is None:
            return
        if record is None or record.key != seen.key:
            raise taken(name, "is none of ours")
        why = "exists, and this pool has no way to replace it in one step" if record.is_whole else "is being made"
        raise taken(name, why)

    async def _require_free(self, volume: GoldenVolume) -> None:
        if over := await self._over(volume):
            raise taken(volume.name, f"is in use: {over} lies over it")
        await self._domains.require_unused(volume.name, volume.path)

    async def _over(self, volume: GoldenVolume) -> str:
        return await self._in_pool(lambda pool: lying_over(pool, str(volume.path)))

    async def _enlarge(self, name: str, size_bytes: int) -> None:
        def enlarge(pool: StoragePool) -> None:
            volume = pool.storageVolLookupByName(name)
            if volume.info()[1] < size_bytes:
                volume.resize(size_bytes, 0)

        await self._in_pool(enlarge)

    async def _seen(self, name: str) -> SeenVolume | None:
        try:
            return await self._in_pool(lambda pool: seen_volume(pool.storageVolLookupByName(name)))
        except LibvirtFailed as error:
            if error.number == NO_VOLUME:
                return None
            raise

    def _in_pool(self, work: Callable[[StoragePool], T], *, again: bool = True) -> Awaitable[T]:
        return in_pool(self._libvirt, self._pool, work, again=again)

    def _records(self) -> Sequence[Record]:
        names = [path.name.removesuffix(SUFFIX) for path in sorted(self._state.glob(f"*{SUFFIX}"))]
        return [record for name in names if (record := self._read(name)) is not None]

    def _read(self, name: str) -> Record | None:
        try:
            return msgspec.json.decode((self._state / f"{name}{SUFFIX}").read_bytes(), type=Record)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            log.warning("what is known of a volume cannot be read", volume=name, why=str(error))
            return None

    def _write(self, record: Record) -> None:
        files.write_atomic(self._state / f"{record.name}{SUFFIX}", msgspec.json.encode(record))

    def _forget(self, name: str) -> None:
        (self._state / f"{name}{SUFFIX}").unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        async with locks.lock(self._lock, timeout_s=LOCK_WAIT_S):
            yield


def _volume(record: Record, seen: SeenVolume, *, is_here: bool) -> GoldenVolume:
    return GoldenVolume(
        name=record.name,
        path=seen.path,
        is_here=is_here,
        size_bytes=record.size_bytes,
        format=record.format,
        job=record.job,
        image=record.image,
        tags=record.tags,
    )
