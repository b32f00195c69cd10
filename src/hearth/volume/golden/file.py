"""Golden volumes as files in a directory: sparse raw copies, clones by shared blocks or as qcow2 files over the image.

root/volumes/<name>/disk            the bytes (0600), or a qcow2 file over ../../bases/<key>
root/volumes/<name>/volume.json     what the bytes do not tell
root/volumes/<name>.<hex>.tmp/      one that is being made
root/bases/<key>                    images that clones lie over: a link to the cache's file where that is possible
root/lock                           held for moments by whoever makes or removes bases or changes names
root/begin.lock                     held by whoever begins a volume, until that says what it is
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from hearth.errors import NotFound
from hearth.host import files, locks
from hearth.host.process import run
from hearth.host.tool import DYING_WITH_US
from hearth.volume.copying import copy_sparse, share
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
    UserOf,
    check_fits,
    ignore_bytes,
    no_such_volume,
    nobody,
    taken,
    would_shrink,
)
from hearth.volume.golden.disks import TOOL_TIMEOUT_S, exchange, grow_qcow2, is_held, to_its_end
from hearth.volume.names import check_volume_name

log = structlog.get_logger(__name__)

DISK, FACTS = "disk", "volume.json"
LOCK_WAIT_S = 600.0
QCOW2_MAGIC = b"QFI\xfb"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """``volume.json``. ``base`` is the key of the image a clone lies over.

    ``home`` is the data directory of whoever made it: nobody else takes it for left behind.
    """

    format: str
    size_bytes: int
    job: str
    image: str
    base: str = ""
    home: str = ""
    tags: dict[str, str] = {}


class FileGoldenVolumes:
    """Implements ``hearth.volume.golden.base.GoldenBackend``. Several processes may use one directory at once.

    Args:
        user_of: is asked before a volume is replaced, grown or deleted.
        home: the id of our data directory.
    """

    name = "file"

    def __init__(self, root: Path, *, user_of: UserOf = nobody, home: str = "") -> None:
        self._user_of, self._home = user_of, home
        self._volumes, self._bases, self._lock = root / "volumes", root / "bases", root / "lock"
        self._begin = root / "begin.lock"

    def prepare(self) -> None:
        """Make the directories, for their owner alone; existing ones are fine."""
        for directory in (self._volumes, self._bases):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def create(self, spec: TargetSpec, image: GoldenImage) -> Target:
        """Make a sparse file."""
        check_volume_name(spec.name, what=NAME_FIELD)
        check_fits(spec, image)
        # What is small to fetch may be large to unpack, and a full disk hurts all others, too.
        files.require_free(self._volumes, max(image.size_bytes, image.data_bytes))
        async with self._staging(spec, image, "raw") as staging:
            with files.new_file(staging / DISK) as disk:
                os.ftruncate(disk, spec.size_bytes)
        return Target(spec=spec, path=staging / DISK, handle=staging.name, is_zero=True)

    async def cloning(self, image_key: str | None) -> CloneAbility:
        """Tell that everything can be cloned."""
        del image_key
        why = "files share an image's blocks where the file system can (reflink), else lie over it (qcow2)"
        return CloneAbility(can_clone=True, has_base=True, why=why)

    async def clone(self, spec: TargetSpec, image: GoldenImage, on_bytes: OnBytes = ignore_bytes) -> Target:
        """Share a raw image's blocks where the file system can; else lay a qcow2 file over the image."""
        check_volume_name(spec.name, what=NAME_FIELD)
        check_fits(spec, image)
        del on_bytes  # nothing is written
        async with self._staging(spec, image, "raw") as staging:
            if image.format == "raw" and await to_its_end(lambda: _reflinked(image, staging / DISK, spec.size_bytes)):
                image_format = "raw"
            else:
                await self._lay_over(staging, spec, image)
                image_format = "qcow2"
        return Target(
            spec=spec,
            path=staging / DISK,
            handle=staging.name,
            is_zero=False,
            is_whole=True,
            format=image_format,
        )

    async def _lay_over(self, staging: Path, spec: TargetSpec, image: GoldenImage) -> None:
        async with self._alone():
            # Written first: a base is kept by whoever names it.
            self._write_facts(staging, spec, image, "qcow2", base=image.key)
            await self._keep_base(image)
        base = f"../../{self._bases.name}/{image.key}"
        # One that outlived us would write into a directory that our successor sweeps.
        words = [*DYING_WITH_US, "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", image.format, "-b", base]
        # -u: the image is not opened, so there is nothing in it to fall for.
        await run([*words, DISK, str(spec.size_bytes)], timeout_s=TOOL_TIMEOUT_S, cwd=staging)
        (staging / DISK).chmod(0o600)

    async def _keep_base(self, image: GoldenImage) -> None:
        """Have the image beside the volumes; the cache may then remove its own name for it."""
        base = self._bases / image.key
        if base.exists():
            return
        try:
            base.hardlink_to(image.path)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
                raise
            temporary = files.temporary_beside(base)
            try:
                with files.opened(image.path) as source:
                    await copy_sparse(source, temporary)
                temporary.chmod(0o444)
                await to_its_end(lambda: files.publish_file(temporary, base))
            finally:
                temporary.unlink(missing_ok=True)
        else:
            files.sync_directory(self._bases)

    async def publish(self, target: Target, *, replace: bool = False) -> GoldenVolume:
        """Rename; where there is one already, both names change in one step."""
        name, staging = target.spec.name, self._volumes / target.handle
        final = self._volumes / name
        async with self._alone():
            if final.exists():
                if not replace:
                    raise taken(name, "exists")
                await self._require_free(name)
            await to_its_end(functools.partial(_swap_in, staging, final))
            await self._remove_left(staging)
        log.info("volume published", volume=name, job=target.spec.job, format=target.format)
        return self._describe(name)

    async def discard(self, target: Target) -> None:
        """Remove the directory it is made in."""
        async with self._alone():
            await self._remove_left(self._volumes / target.handle)

    async def list(self) -> Sequence[GoldenVolume]:
        """Tell of every volume that is there in whole."""
        found = []
        for path in sorted(self._volumes.iterdir()):
            if not path.name.endswith(files.TEMPORARY_SUFFIX):
                with contextlib.suppress(NotFound):  # deleted meanwhile, or none of ours
                    found.append(self._describe(path.name))
        return found

    async def describe(self, name: str) -> GoldenVolume:
        """Tell what was written down at its making."""
        return self._describe(check_volume_name(name, what=NAME_FIELD))

    async def is_in_use(self, name: str) -> bool:
        """Ask for the locks that QEMU and we take on what is open, and for whoever else may be told of."""
        volume = self._describe(check_volume_name(name, what=NAME_FIELD))
        return is_held(volume.path) or await self._user_of(volume.path) is not None

    async def grow(self, name: str, size_bytes: int) -> GoldenVolume:
        """Make the file longer, or let the qcow2 file tell of a larger disk."""
        check_volume_name(name, what=NAME_FIELD)
        async with self._alone():
            before = self._describe(name)
            if size_bytes < before.size_bytes:
                raise would_shrink(name, size_bytes, before.size_bytes)
            await self._require_free(name)
            facts = self._facts(name)
            descriptor = os.open(before.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                if before.format == "qcow2":
                    await grow_qcow2(descriptor, size_bytes)
                else:
                    with files.space_errors(before.path):
                        os.ftruncate(descriptor, size_bytes)
                await to_its_end(lambda: os.fsync(descriptor))
            finally:
                os.close(descriptor)
            grown = msgspec.structs.replace(facts, size_bytes=size_bytes)
            files.write_atomic(self._volumes / name / FACTS, msgspec.json.encode(grown))
        return self._describe(name)

    async def delete(self, name: str) -> None:
        """Take it out of the list at once, then give its space back."""
        check_volume_name(name, what=NAME_FIELD)
        async with self._alone():
            if not (self._volumes / name).exists():
                return
            await self._require_free(name)
            gone = files.temporary_beside(self._volumes / name)
            (self._volumes / name).rename(gone)
            files.sync_directory(self._volumes)
            await self._remove_left(gone)

    async def sweep(self, living: Living) -> Sequence[str]:
        """Remove what makers whose job is over left, and bases that nobody names."""
        known = [facts for path in self._unfinished() if (facts := _read_facts(path)) is not None]
        over = {facts.job for facts in known if facts.home in ("", self._home)} - set(await living())
        swept = []
        async with self._alone(), self._beginning():  # so that whoever has just begun has written down what it is
            for path in self._unfinished():
                facts = _read_facts(path)
                if facts is None or (facts.home in ("", self._home) and facts.job in over):
                    swept.append(path.name.rsplit(".", 2)[0])
                    await to_its_end(functools.partial(files.remove_tree, path))
            self._remove_bases()
        return swept

    def _unfinished(self) -> Sequence[Path]:
        return sorted(self._volumes.glob(f"*{files.TEMPORARY_SUFFIX}"))

    async def _remove_left(self, path: Path) -> None:
        """Remove a directory that has no name any more, and its base when it was the last over it."""
        facts = _read_facts(path)
        await to_its_end(functools.partial(files.remove_tree, path))
        if facts is not None and facts.base:
            self._remove_bases()

    def _remove_bases(self) -> None:
        known = {path: _read_facts(path) for path in self._volumes.iterdir()}
        if any(facts is None and (path / FACTS).exists() for path, facts in known.items()):
            return  # nobody can tell what that one lies over
        named = {facts.base for facts in known.values() if facts is not None}
        for base in self._bases.iterdir():
            if base.name not in named:
                base.unlink(missing_ok=True)

    async def _require_free(self, name: str) -> None:
        try:
            volume = self._describe(name)
        except NotFound as error:
            raise taken(name, "is none of ours") from error
        if is_held(volume.path):
            raise taken(name, "is in use")
        if (user := await self._user_of(volume.path)) is not None:
            raise taken(name, f"is in use by {user}")

    def _describe(self, name: str) -> GoldenVolume:
        facts, path = self._facts(name), self._volumes / name / DISK
        return GoldenVolume(
            name=name,
            path=path,
            size_bytes=facts.size_bytes,
            format=facts.format,
            job=facts.job,
            image=facts.image,
            tags=facts.tags,
            base=self._bases / facts.base if facts.base else None,
            base_format=_format_of(self._bases / facts.base) if facts.base else "raw",
        )

    def _facts(self, name: str) -> Facts:
        facts = _read_facts(self._volumes / name)
        if facts is None or not (self._volumes / name / DISK).is_file():
            raise no_such_volume(name)
        return facts

    def _write_facts(
        self, staging: Path, spec: TargetSpec, image: GoldenImage, image_format: str, *, base: str = ""
    ) -> None:
        tags: Mapping[str, str] = {**spec.tags, JOB_TAG: spec.job, IMAGE_TAG: image.key}
        facts = Facts(
            format=image_format,
            size_bytes=spec.size_bytes,
            job=spec.job,
            image=image.key,
            base=base,
            home=self._home,
            tags=dict(tags),
        )
        files.write_atomic(staging / FACTS, msgspec.json.encode(facts))

    @contextlib.asynccontextmanager
    async def _staging(self, spec: TargetSpec, image: GoldenImage, image_format: str) -> AsyncIterator[Path]:
        """Make a directory beside the volumes that says what it is; an error inside removes it."""
        staging = files.temporary_beside(self._volumes / spec.name)
        try:
            with files.space_errors(staging):
                async with self._beginning():  # a sweep takes one that says nothing for left behind
                    staging.mkdir(mode=0o700)
                    self._write_facts(staging, spec, image, image_format)
                yield staging
        except BaseException:
            files.remove_tree(staging)
            raise

    @contextlib.asynccontextmanager
    async def _beginning(self) -> AsyncIterator[None]:
        async with locks.lock(self._begin, timeout_s=LOCK_WAIT_S):
            yield

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        async with locks.lock(self._lock, timeout_s=LOCK_WAIT_S):
            yield


def _swap_in(staging: Path, final: Path) -> None:
    """Give a directory its final name, durably; what had the name then has the other."""
    for path in staging.iterdir():
        files.sync_file(path)
    files.sync_directory(staging)
    if final.exists():
        exchange(staging, final)
    else:
        staging.rename(final)
    files.sync_directory(final.parent)


def _reflinked(image: GoldenImage, disk: Path, size_bytes: int) -> bool:
    with files.opened(image.path) as source, files.new_file(disk) as made:
        if share(source, made):
            os.ftruncate(made, size_bytes)
            return True
    disk.unlink()
    return False


def _format_of(base: Path) -> str:
    """Tell a base's format: images that begin like qcow2 and are not were refused when they came."""
    try:
        with base.open("rb") as file:
            return "qcow2" if file.read(len(QCOW2_MAGIC)) == QCOW2_MAGIC else "raw"
    except FileNotFoundError:
        return "raw"


def _read_facts(directory: Path) -> Facts | None:
    try:
        return msgspec.json.decode((directory / FACTS).read_bytes(), type=Facts)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except msgspec.DecodeError as error:
        log.warning("what is known of a volume cannot be read", path=str(directory), why=str(error))
        return None
