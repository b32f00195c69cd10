"""Layers as registries have them, kept by checksum: fetched once whoever asks, resumed where they were cut.

blobs/<registry>/sha256-<hex>         whole and verified
blobs/<registry>/sha256-<hex>.part    what has come so far; its checksum is judged when it is whole
blobs/locks/                          one lock file for each that is being fetched

What is cached of a registry is given only to those whom this registry itself says that they may have it; and never to
those who ask another registry, which might say anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import structlog

from hearth.host import files, locks
from hearth.host.threads import KeptThread, on_own_thread
from hearth.image.layers.refused import refused
from hearth.image.oci.documents import Descriptor
from hearth.image.oci.registry import Registry
from hearth.image.oci.transport import ATTEMPTS, BROKEN, Answer, backoff_s, unreachable

log = structlog.get_logger(__name__)

PART = ".part"
WAIT_S = 4 * 3600.0
MAX_PIECES = 500
"""In so many connections a layer must have come."""
PIECE_BYTES = 256 * 1024
FREE_BYTES = 256 * 1024 * 1024
"""What stays free beside a blob that is to be fetched."""

OnBytes = Callable[[int], None]
"""Told of bytes of a blob that are there now, and of fewer (negative) where some turned out to be worth nothing."""


class BlobCache:
    """The blobs of a data directory; several processes may use it at once.

    Args:
        max_bytes: what they may take together; those used last stay.
    """

    def __init__(self, root: Path, *, max_bytes: int) -> None:
        self._root = root
        self._locks = root / "locks"
        self._max_bytes = max_bytes
        self._pins: Counter[Path] = Counter()

    def prepare(self) -> None:
        """Make the directories; existing ones are fine."""
        self._locks.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def kept(self, registry: Registry, blobs: Collection[Descriptor]) -> Iterator[None]:
        """Keep blobs from being evicted by this process."""
        paths = [self._path(registry, blob) for blob in blobs]
        self._pins.update(paths)
        try:
            yield
        finally:
            self._pins.subtract(paths)
            self._pins += Counter()  # forget those at zero

    async def obtain(self, registry: Registry, blob: Descriptor, on_bytes: OnBytes) -> Path:
        """Give the file of a blob that whoever asks may have; inside ``kept`` it stays.

        Raises:
            RegistryNotFound, RegistryRefused, RegistryUnreachable: it may or can not be had.
            ImageRefused: what the registry sends is not what the checksum says.
            NoSpace: the disk is or would be full.
        """
        path = self._path(registry, blob)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not await self._is_there(path, blob):
            async with locks.lock(self._lock(path), timeout_s=WAIT_S) as held:
                if not await self._is_there(path, blob):
                    await _Fetch(registry, blob, path, on_bytes).run()
                    held.discard()
                    return path
                held.discard()
        # Somebody fetched it: it is given to those alone whom the registry gives it, too.
        await require_permission(registry, blob)
        os.utime(path)
        on_bytes(blob.size)
        return path

    async def evict(self) -> None:
        """Delete what was used longest ago, until the rest is within bounds; what is being fetched or kept stays."""
        kept = frozenset(self._pins)
        await on_own_thread("evict layers", lambda: self._evict(kept))

    def _evict(self, kept: frozenset[Path]) -> None:
        found = []
        for path in self._root.glob("*/*"):
            if path.parent != self._locks and path.is_file():
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        excess = sum(size for _, size, _ in found) - self._max_bytes
        for _, size, path in sorted(found):
            if excess <= 0:
                return
            whole = path.with_name(path.name.removesuffix(PART))
            if whole in kept:
                continue
            held = locks.try_lock(self._lock(whole))
            if held is not None:
                path.unlink(missing_ok=True)
                held.discard()
                excess -= size
                log.info("layer evicted", blob=path.name, size_bytes=size)

    def _path(self, registry: Registry, blob: Descriptor) -> Path:
        label = hashlib.sha256(registry.label.encode()).hexdigest()[:16]
        return self._root / label / blob.digest.replace(":", "-")

    def _lock(self, path: Path) -> Path:
        return self._locks / f"{path.parent.name}-{path.name}.lock"

    @staticmethod
    async def _is_there(path: Path, blob: Descriptor) -> bool:
        try:
            return (await asyncio.to_thread(path.stat)).st_size == blob.size
        except FileNotFoundError:
            return False


class _Fetch:
    """One blob on its way."""

    def __init__(self, registry: Registry, blob: Descriptor, path: Path, on_bytes: OnBytes) -> None:
        self._registry = registry
        self._blob = blob
        self._path = path
        self._part = path.with_name(path.name + PART)
        self._on_bytes = on_bytes
        self._digest = hashlib.new(blob.digest.partition(":")[0])
        self._have = self._beginnings = 0
        self._thread = KeptThread("layer")

    async def run(self) -> None:
        """Fetch it, in as many pieces as it takes."""
        try:
            await self._thread.run(self._take_up)
            self._on_bytes(self._have)
            if self._have == self._blob.size:
                await require_permission(self._registry, self._blob)
            failures = 0
            for _ in range(MAX_PIECES):
                if self._have == self._blob.size:
                    await self._thread.run(self._finish)
                    return
                before, broken = self._have, None
                try:
                    await self._continue()
                except BROKEN as error:
                    broken = error
                # Progress renews patience: a line that breaks every minute still brings a large layer.
                failures = 0 if self._have > before else failures + 1
                if failures >= ATTEMPTS:
                    break
                if self._have < self._blob.size:
                    await asyncio.sleep(backoff_s(failures or 1))
            raise unreachable(self._registry.base, broken or f"the layer {self._blob.digest} never comes whole")
        finally:
            self._thread.close()

    async def _continue(self) -> None:
        start = self._have
        files.require_free(self._path.parent, self._blob.size - start + FREE_BYTES)
        async with self._registry.blob(self._blob, start) as answer:
            if start and answer.status != 206:
                await self._thread.run(self._begin_anew)
            elif start and not _fits(answer, start, self._blob.size):
                await self._thread.run(self._begin_anew)
                return
            elif not start and answer.status != 200:
                raise refused(f"the registry answers {answer.status} for {self._blob.digest}")
            if answer.status == 416:
                return
            with files.space_errors(self._part), _appending(self._part) as file:
                async for piece in answer.pieces():
                    if self._have + len(piece) > self._blob.size:
                        await self._thread.run(self._begin_anew)
                        raise refused(f"the registry sent more than the {self._blob.size} bytes of {self._blob.digest}")
                    await self._thread.run(lambda data=piece: self._write(file, data))  # type: ignore[misc]
                    self._on_bytes(len(piece))

    def _write(self, file: IO[bytes], data: bytes) -> None:
        file.write(data)
        self._digest.update(data)
        self._have += len(data)

    def _take_up(self) -> None:
        """Go on with what an earlier attempt has left."""
        try:
            with self._part.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    self._digest.update(piece)
                    self._have += len(piece)
        except FileNotFoundError:
            return
        if self._have > self._blob.size:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._beginnings += 1
        if self._beginnings > ATTEMPTS:
            raise refused(f"the registry has another size for {self._blob.digest} each time")
        self._on_bytes(-self._have)
        self._part.unlink(missing_ok=True)
        self._digest = hashlib.new(self._blob.digest.partition(":")[0])
        self._have = 0

    def _finish(self) -> None:
        """Publish it when it is what its checksum says. Raises ImageRefused when it is not: nothing is kept of it."""
        if self._digest.hexdigest() != self._blob.digest.partition(":")[2]:
            self._part.unlink(missing_ok=True)
            raise refused(f"the registry sent something else than {self._blob.digest}")
        self._part.touch()
        files.publish_file(self._part, self._path)


async def require_permission(registry: Registry, blob: Descriptor) -> None:
    """Refuse a blob that is here to whom the registry does not give it.

    Raises:
        RegistryNotFound, RegistryRefused, RegistryUnreachable: as when it is fetched.
    """
    if not await registry.may_have(blob):
        async with registry.blob(blob, 1):
            pass  # it words it better than the answer to a HEAD, which has no body
        raise refused(f"the registry does not confirm {blob.digest}")


@contextmanager
def _appending(path: Path) -> Iterator[IO[bytes]]:
    with path.open("ab", buffering=0) as file:
        yield file


def _fits(answer: Answer, start: int, size: int) -> bool:
    """Tell whether a part is the one that was asked for (RFC 9110, 14.4)."""
    return answer.headers.get("content-range", "").replace(" ", "") in (
        f"bytes{start}-{size - 1}/{size}",
        f"bytes{start}-{size - 1}/*",
    )
