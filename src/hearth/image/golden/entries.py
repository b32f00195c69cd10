"""What the cache keeps on disk, and who uses it.

images/<sha256>/image        the bytes as they came (0444), never written again
images/<sha256>/facts.json   format, sizes, where it came from
images/<sha256>/use          locked shared by whoever uses the image; its time is that of the last use
images/<sha256>/pinned       there while it is not to be evicted
images/<sha256>/spoilt       there when its bytes were found to be others: given to nobody any more
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import msgspec
import structlog

from hearth.host import files, locks

log = structlog.get_logger(__name__)

_FLOCK = struct.Struct("hhqqi4x")
"""struct flock of 64-bit Linux: type, whence, start, length, process id."""
IMAGE, FACTS, USE, PINNED, SPOILT = "image", "facts.json", "use", "pinned", "spoilt"


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """``facts.json``. ``data_bytes`` are what its data have once they are unpacked; 0 where nobody wrote that down."""

    sha256: str
    format: str
    size_bytes: int
    virtual_size_bytes: int
    url: str
    fetched_at: datetime
    data_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An image in the cache; ``is_in_use`` by any process."""

    key: str
    facts: Facts
    allocated_bytes: int
    last_used_at: datetime
    is_pinned: bool
    is_in_use: bool
    is_spoilt: bool = False


class Lease:
    """The use of an image: as long as it is held, by whichever process, the image stays."""

    def __init__(self, directory: Path, facts: Facts, lock: int, *, is_hit: bool) -> None:
        self.path = directory / IMAGE
        self.facts = facts
        self.is_hit = is_hit
        self._lock = lock

    @property
    def key(self) -> str:
        """The SHA-256 of its bytes."""
        return self.facts.sha256

    def release(self) -> None:
        """End the use; twice is fine."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Entries:
    """The directory of images. Several processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def take(self, key: str, *, is_hit: bool, now: datetime) -> Lease | None:
        """Use an image; None when there is none of that key."""
        directory = self.root / key
        try:
            lock = os.open(directory / USE, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            # Who removes it holds it exclusively and renames it first: then it is not the one of that name any more.
            facts = self._facts(directory) if _lock(lock, fcntl.F_RDLCK) else None
            if facts is not None and locks.is_named(lock, directory / USE) and self._is_whole(directory, facts):
                os.utime(lock, (now.timestamp(), now.timestamp()))
                return Lease(directory, facts, lock, is_hit=is_hit)
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)
        return None

    def publish(self, part: Path, facts: Facts, now: datetime) -> None:
        """Move a judged file into the cache, durably; one of the same contents that is there already wins."""
        staging = files.temporary_beside(self.root / facts.sha256)
        staging.mkdir(mode=0o700)
        try:
            part.chmod(0o444)
            part.rename(staging / IMAGE)
            (staging / FACTS).write_bytes(msgspec.json.encode(facts))
            (staging / USE).touch(mode=0o600)
            os.utime(staging / USE, (now.timestamp(), now.timestamp()))
            final = self.root / facts.sha256
            if not files.publish_directory(staging, final) and not self._is_good(final):
                damaged = files.temporary_beside(final)
                final.rename(damaged)
                files.publish_directory(staging, final)
                files.remove_tree(damaged)
        finally:
            files.remove_tree(staging)

    def remove(self, key: str) -> int | None:
        """Remove an image nobody uses and give the bytes that were freed; None when somebody does, or it is gone."""
        directory = self.root / key
        try:
            lock = os.open(directory / USE, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            if not (_lock(lock, fcntl.F_WRLCK) and locks.is_named(lock, directory / USE)):
                return None
            freed = _allocated(directory)
            gone = files.temporary_beside(directory)
            directory.rename(gone)
            files.sync_directory(self.root)
            files.remove_tree(gone)
        finally:
            os.close(lock)
        return freed

    def pin(self, key: str, *, is_pinned: bool) -> bool:
        """Keep an image from eviction, or let it go; False when there is none."""
        try:
            if is_pinned:
                (self.root / key / PINNED).touch(mode=0o600)
            else:
                (self.root / key / PINNED).unlink(missing_ok=True)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return (self.root / key).is_dir()

    def spoil(self, key: str) -> None:
        """Give an image to nobody any more: its bytes are not what they were. Who has it keeps it."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            (self.root / key / SPOILT).touch(mode=0o600)
            files.sync_directory(self.root / key)

    def list(self) -> list[Entry]:
        """Tell of every image, the one that was used longest ago first."""
        found = [entry for directory in self._directories() if (entry := self._entry(directory)) is not None]
        return sorted(found, key=lambda entry: entry.last_used_at)

    def sweep(self, *, older_than_s: float) -> None:
        """Remove what a publication or removal left that was interrupted so long ago."""
        for left in self.root.glob(f"*{files.TEMPORARY_SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime >= older_than_s:
                    files.remove_tree(left)

    def _directories(self) -> Iterator[Path]:
        return (path for path in self.root.iterdir() if not path.name.endswith(files.TEMPORARY_SUFFIX))

    def _entry(self, directory: Path) -> Entry | None:
        facts = self._facts(directory)
        if facts is None:
            return None
        try:
            used_s = (directory / USE).stat().st_mtime
        except FileNotFoundError:
            return None
        return Entry(
            key=directory.name,
            facts=facts,
            allocated_bytes=_allocated(directory),
            last_used_at=datetime.fromtimestamp(used_s, UTC),
            is_pinned=(directory / PINNED).exists(),
            is_in_use=_is_held(directory / USE),
            is_spoilt=(directory / SPOILT).exists(),
        )

    def _facts(self, directory: Path) -> Facts | None:
        try:
            return msgspec.json.decode((directory / FACTS).read_bytes(), type=Facts)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except msgspec.DecodeError as error:
            log.warning("what is known of an image cannot be read", path=str(directory), why=str(error))
            return None

    def _is_good(self, directory: Path) -> bool:
        facts = self._facts(directory)
        return facts is not None and (directory / USE).exists() and self._is_whole(directory, facts)

    def _is_whole(self, directory: Path, facts: Facts) -> bool:
        try:
            return (directory / IMAGE).stat().st_size == facts.size_bytes and not (directory / SPOILT).exists()
        except FileNotFoundError:
            return False


def _allocated(directory: Path) -> int:
    try:
        return (directory / IMAGE).stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, 0, 0, 1, 0))
    finally:
        os.close(descriptor)
    return bool(_FLOCK.unpack(found)[0] != fcntl.F_UNLCK)


def _lock(descriptor: int, kind: int) -> bool:
    """Take an open file description lock (fcntl(2)), which unlike flock(2) can be asked for without being taken."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, 0, 0, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True
