"""Golden volumes in a libvirt pool that is a directory of this host: files that libvirt sees under their own names.

POOL/<name>                  a volume: raw, or a qcow2 file over a base
POOL/<name>.<hex>.tmp        one that is being made, or that was replaced and is about to go
POOL/hearth-base-<key>       an image that clones lie over: a copy of the pool's own, since libvirt gives it to its QEMU

Which of them are ours they say themselves (``marks``); what is not marked is never touched. libvirt has no way to
rename a volume: names change in the directory, and the pool is looked at anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import structlog

from hearth.errors import Conflict, HearthError, HostUnfit
from hearth.host import files, locks
from hearth.host.libvirt import Libvirt, LibvirtFailed
from hearth.host.libvirt_binding import NO_VOLUME
from hearth.host.process import run
from hearth.volume.copying import copy_into, share
from hearth.volume.golden.base import (
    IMAGE_TAG,
    JOB_TAG,
    NAME_FIELD,
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
from hearth.volume.golden.disks import TOOL_TIMEOUT_S, exchange, grow_qcow2, is_held, is_there, rename_new, to_its_end
from hearth.volume.golden.domains import Domains, identity, lies_over
from hearth.volume.golden.homes import KeeperOf, nobody_keeps
from hearth.volume.golden.libvirt_pool import PoolFacts, in_pool, pool_facts, refresh
from hearth.volume.golden.marks import Mark, change_mark, make_marked, published, read_mark, unfinished, volume_of
from hearth.volume.names import check_volume_name

log = structlog.get_logger(__name__)

BASE_PREFIX = "hearth-base-"
LOCK_WAIT_S = 600.0


class LibvirtFiles:
    """Implements ``hearth.volume.golden.base.GoldenBackend`` for one pool.

    Args:
        state: a directory of ours for this pool: whether libvirt is still to look at it.
        home: the id of our data directory.
        locks: a directory for locks that all daemons of this host take; None where there is but one.
        keeper_of: tells which other daemon's a volume is.
    """

    name = "libvirt"

    def __init__(
        self,
        libvirt: Libvirt,
        pool: PoolFacts,
        state: Path,
        *,
        home: str = "",
        locks: Path | None = None,
        keeper_of: KeeperOf = nobody_keeps,
    ) -> None:
        self._libvirt, self._keeper_of = libvirt, keeper_of
        self._domains = Domains(libvirt)
        self._pool = pool.name
        self._directory = pool.path
        self._home, self._owed = home, state / "refresh"
        place = hashlib.sha256(os.fsencode(pool.path.resolve())).hexdigest()[:16]
        self._lock = (state if locks is None else locks) / f"directory-{place}.lock"
        self._is_seen = False

    async def create(self, spec: TargetSpec, image: GoldenImage) -> Target:
        """Make a sparse file."""
        await self._check(spec, image)
        files.require_free(self._directory, image.path.stat().st_size)
        async with self._making(spec, image, "raw") as (staging, descriptor):
            with files.space_errors(staging):
                os.ftruncate(descriptor, spec.size_bytes)
        return self._target(spec, staging, "raw", is_whole=False)

    async def cloning(self, image_key: str | None) -> CloneAbility:
        """Tell that everything can be cloned, and whether the pool has its copy of the image."""
        has_base = image_key is not None and read_mark(self._directory / (BASE_PREFIX + image_key)) is not None
        why = "volumes share an image's blocks where the file system can, else lie over the pool's copy of it (qcow2)"
        return CloneAbility(can_clone=True, has_base=has_base, why=why)

    async def clone(self, spec: TargetSpec, image: GoldenImage, on_bytes: OnBytes = ignore_bytes) -> Target:
        """Share a raw image's blocks where the file system can; else lay a qcow2 file over the pool's own copy."""
        await self._check(spec, image)
        if image.format == "raw":
            async with self._making(spec, image, "raw") as (staging, descriptor):
                with files.opened(image.path) as source:
                    is_shared = await to_its_end(functools.partial(share, source, descriptor))
                if is_shared:
                    os.ftruncate(descriptor, spec.size_bytes)
            if is_shared:
                return self._target(spec, staging, "raw", is_whole=True)
            staging.unlink()
        async with self._making(spec, image, "qcow2", base=BASE_PREFIX + image.key) as (staging, _):
            await self._keep_base(image, on_bytes)
            words = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", image.format, "-b", BASE_PREFIX + image.key]
            # -u: the image is not opened, so there is nothing in it to fall for.
            await run([*words, staging.name, str(spec.size_bytes)], timeout_s=TOOL_TIMEOUT_S, cwd=self._directory)
        return self._target(spec, staging, "qcow2", is_whole=True)

    async def _keep_base(self, image: GoldenImage, on_bytes: OnBytes) -> None:
        """Have a copy of the image in the pool, once for all its clones."""
        base = self._directory / (BASE_PREFIX + image.key)
        async with self._alone():
            mark = read_mark(base)
            if mark is not None and mark.is_base and mark.name == base.name:
                return
            if base.exists():
                raise Conflict(
                    "the pool has a file that is none of ours",
                    details=f"{base} stands where a copy of the image is to be",
                    resolution="move it away, or ask for a copy instead of a clone",
                )
            files.require_free(self._directory, image.size_bytes)
            mark = Mark(
                name=base.name, format=image.format, size_bytes=image.virtual_size_bytes, job="", image=image.key,
                home=self._home, is_base=True,
            )  # fmt: skip
            staging = files.temporary_beside(base)
            descriptor = make_marked(staging, mark)
            try:
                with files.opened(image.path) as source:
                    await copy_into(source, descriptor, staging, on_bytes)
                os.fchmod(descriptor, 0o444)
                await to_its_end(functools.partial(os.fsync, descriptor))
                rename_new(staging, base)
            except BaseException:
                staging.unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
            files.sync_directory(self._directory)

    async def publish(self, target: Target, *, replace: bool = False) -> GoldenVolume:
        """Rename, or swap the two files in one step, and let libvirt look."""
        name, staging = target.spec.name, target.path
        final = self._directory / name
        async with self._alone():
            await pool_facts(self._libvirt, self._pool)  # nothing is changed that libvirt could not be told of
            is_replacing = is_there(final)
            if is_replacing:
                if not replace:
                    raise taken(name, "exists")
                await self._require_free(name)
            await to_its_end(functools.partial(files.sync_file, staging))
            self._owed.touch()
            await to_its_end(functools.partial(self._take_name, staging, final, is_replacing=is_replacing))
            await self._remove(staging)
            await self._tell()
        log.info("volume published", pool=self._pool, volume=name, job=target.spec.job, format=target.format)
        return self._described(name)

    def _take_name(self, staging: Path, final: Path, *, is_replacing: bool) -> None:
        if not is_replacing:
            try:
                rename_new(staging, final)
            except FileExistsError as error:
                raise taken(final.name, "exists") from error
        else:
            exchange(staging, final)
            before = read_mark(staging)
            if before is None or before.name != final.name:
                exchange(staging, final)  # somebody put a file of his own there in this moment
                raise taken(final.name, "is none of ours")
        files.sync_directory(self._directory)

    async def discard(self, target: Target) -> None:
        """Remove the file it is made in."""
        async with self._alone():
            if target.path.name != target.spec.name:
                await self._remove(target.path)

    async def list(self) -> Sequence[GoldenVolume]:
        """Tell of every file that has its name."""
        return [volume_of(path, mark) for path, mark in published(self._directory) if not mark.is_base]

    async def describe(self, name: str) -> GoldenVolume:
        """Ask the file."""
        return self._described(check_volume_name(name, what=NAME_FIELD))

    async def is_in_use(self, name: str) -> bool:
        """Ask for QEMU's locks and ours, libvirt's domains, and files that lie over it."""
        volume, mark = await self.describe(name), self._ours(name)
        if mark is not None and await self._keeper_of(mark.home):
            return True
        return bool(is_held(volume.path) or await self._over(volume.path) or await self._domains.users(volume.path))

    async def grow(self, name: str, size_bytes: int) -> GoldenVolume:
        """Make the file longer, or let the qcow2 file tell of a larger disk."""
        check_volume_name(name, what=NAME_FIELD)
        async with self._alone():
            before = self._described(name)
            if size_bytes < before.size_bytes:
                raise would_shrink(name, size_bytes, before.size_bytes)
            await self._require_free(name)
            descriptor = os.open(before.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if before.format == "qcow2":
                    await grow_qcow2(descriptor, size_bytes)
                else:
                    with files.space_errors(before.path):
                        os.ftruncate(descriptor, size_bytes)
                change_mark(descriptor, self._mark(name, size_bytes))
                await to_its_end(functools.partial(os.fsync, descriptor))
            finally:
                os.close(descriptor)
            await self._tell()
        return self._described(name)

    async def delete(self, name: str) -> None:
        """Take its name, then give its space back."""
        check_volume_name(name, what=NAME_FIELD)
        async with self._alone():
            final = self._directory / name
            if not is_there(final):
                return
            await self._require_free(name)
            gone = files.temporary_beside(final)
            self._owed.touch()
            final.rename(gone)
            files.sync_directory(self._directory)
            await self._remove(gone)
            await self._tell()

    async def sweep(self, living: Living) -> Sequence[str]:
        """Remove what makers whose job is over left, and bases that nobody lies over."""
        over, swept = {mark.job for _, mark in unfinished(self._directory)} - set(await living()), []
        async with self._alone():
            for path, mark in list(unfinished(self._directory)):
                if mark.home == self._home and mark.job in over:
                    swept.append(mark.name)
                    await to_its_end(functools.partial(path.unlink, missing_ok=True))
            removed = await self._remove_bases()
            if swept or removed or self._owed.exists():
                await self._tell()
        return [name for name in swept if not name.startswith(BASE_PREFIX)]

    async def _check(self, spec: TargetSpec, image: GoldenImage) -> None:
        check_volume_name(spec.name, what=NAME_FIELD)
        check_fits(spec, image)
        final = self._directory / spec.name
        if is_there(final) and self._ours(spec.name) is None:
            raise taken(spec.name, "is none of ours")
        await pool_facts(self._libvirt, self._pool)

    @contextlib.asynccontextmanager
    async def _making(
        self, spec: TargetSpec, image: GoldenImage, image_format: str, *, base: str = ""
    ) -> AsyncIterator[tuple[Path, int]]:
        """Make a file beside the volumes; an error inside removes it."""
        staging = files.temporary_beside(self._directory / spec.name)
        tags = {**spec.tags, JOB_TAG: spec.job, IMAGE_TAG: image.key}
        mark = Mark(
            name=spec.name, format=image_format, size_bytes=spec.size_bytes, job=spec.job, image=image.key, base=base,
            home=self._home, tags=tags,
        )  # fmt: skip
        descriptor = make_marked(staging, mark)
        try:
            await self._require_seen(staging)
            yield staging, descriptor
        except BaseException:
            staging.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    async def _require_seen(self, staging: Path) -> None:
        """Refuse a directory that is another one for libvirt, as in a container; asked once."""
        if self._is_seen:
            return
        await refresh(self._libvirt, self._pool)
        try:
            await in_pool(self._libvirt, self._pool, lambda pool: pool.storageVolLookupByName(staging.name).path())
        except LibvirtFailed as error:
            if error.number != NO_VOLUME:
                raise
            raise HostUnfit(
                "the pool's directory is not the one libvirt sees",
                details=f"a file made in {self._directory} is not in pool {self._pool!r} of {self._libvirt.uri}",
                resolution="run hearth where libvirt runs, or give libvirt_uri with the host's name",
            ) from error
        self._is_seen = True

    def _target(self, spec: TargetSpec, staging: Path, image_format: str, *, is_whole: bool) -> Target:
        return Target(
            spec=spec, path=staging, handle=staging.name, is_zero=not is_whole, is_whole=is_whole, format=image_format
        )

    async def _remove(self, path: Path) -> None:
        """Remove a file that has no name any more, and its base when it was the last over it."""
        mark = read_mark(path)
        if mark is None:
            return
        await to_its_end(functools.partial(path.unlink, missing_ok=True))
        if mark.base:
            await self._remove_bases()

    async def _remove_bases(self) -> int:
        try:
            return await self._remove_unnamed_bases()
        except HearthError as error:
            log.warning("images that clones lay over were not tidied", pool=self._pool, why=str(error))
            return 0  # a sweep tries again

    async def _remove_unnamed_bases(self) -> int:
        marked = [*published(self._directory), *unfinished(self._directory)]
        named = {mark.base for _, mark in marked}
        unnamed = [path for path, mark in marked if mark.is_base and mark.name == path.name and path.name not in named]
        count = 0
        for base in unnamed:
            # Somebody may have laid a file of his own over it.
            if not (is_held(base) or await self._over(base) or await self._domains.users(base)):
                base.unlink(missing_ok=True)
                count += 1
        return count

    async def _require_free(self, name: str) -> None:
        if (mark := self._ours(name)) is None:
            raise taken(name, "is none of ours")
        if keeper := await self._keeper_of(mark.home):
            raise taken(name, f"is in use by {keeper}")
        path = self._directory / name
        if is_held(path):
            raise taken(name, "is in use")
        if over := await self._over(path):
            raise taken(name, f"is in use: {over} lies over it")
        await self._domains.require_unused(name, path)

    async def _over(self, path: Path) -> str:
        """Give the name of a file in the pool that lies over this one, empty where none does."""
        return await to_its_end(functools.partial(self._over_now, path))

    def _over_now(self, path: Path) -> str:
        wanted = identity(str(path))
        for other in self._directory.iterdir():
            mark = read_mark(other)
            # What is in a raw volume of ours was written by its machine, whatever it looks like.
            if mark is None or (mark.format == "qcow2" and not mark.is_base):
                below = lies_over(str(other))
                if below and identity(below) == wanted:
                    return other.name
        return ""

    def _ours(self, name: str) -> Mark | None:
        mark = read_mark(self._directory / name)
        return mark if mark is not None and mark.name == name and not mark.is_base else None

    def _mark(self, name: str, size_bytes: int) -> Mark:
        mark = self._ours(name)
        if mark is None:
            raise no_such_volume(name)
        return msgspec.structs.replace(mark, size_bytes=size_bytes)

    def _described(self, name: str) -> GoldenVolume:
        mark = self._ours(name)
        if mark is None:
            raise no_such_volume(name)
        return volume_of(self._directory / name, mark)

    async def _tell(self) -> None:
        """Let libvirt look; what was done stays done where it cannot, and a sweep asks again."""
        try:
            await refresh(self._libvirt, self._pool)
        except HearthError as error:
            self._owed.touch()
            log.warning("libvirt was not told of a change in its pool", pool=self._pool, why=str(error))
        else:
            self._owed.unlink(missing_ok=True)

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        async with locks.lock(self._lock, timeout_s=LOCK_WAIT_S) as held:
            try:
                yield
            finally:
                held.discard()  # pools come and go
