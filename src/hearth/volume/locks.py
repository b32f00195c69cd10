"""Who has which volume: a durable record of each attachment, and a kernel lock that lives as long as the VMM's copy.

The record says who *may* use the volume, from before the VMM gets it until that was proven to be gone, through restarts
of the daemon and of the host. The kernel lock (``hearth.volume.holds``) says who *does*. To attach takes both; a record
is given up only when the kernel says that nobody holds the volume in that name: docs/decisions/volumes-locks.md.

root/
  <volume>.json    the attachments, if there are any
  <volume>.lock    held while the record is read and written
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from hearth.errors import HearthError, NotFound, TimedOut
from hearth.host import files, locks
from hearth.host.clock import Clock
from hearth.model import check_name
from hearth.volume import holds
from hearth.volume.base import AttachMode, volume_in_use
from hearth.volume.names import check_volume_name

RECORD_SUFFIX = ".json"
LOCK_SUFFIX = ".lock"
LOCK_TIMEOUT_S = 2.0
"""Records are written in milliseconds; who has the lock for longer deletes, grows or copies the volume."""
GONE_TIMEOUT_S = 0.5
GONE_RETRY_S = 0.02
"""A process of ours about to start another holds copies of all descriptors for a moment."""


class RecordDamaged(HearthError):
    """The record of a volume cannot be read; it is left as it is, for without it nobody knows who has the volume."""


class Opener(Protocol):
    """What gives descriptors of volumes: any ``VolumeBackend``."""

    def open(self, name: str, mode: AttachMode) -> int: ...


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """One machine that has a volume."""

    machine: str
    mode: AttachMode
    since: datetime


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    version: int = 1
    holders: list[Holder] = []


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A machine's right to a volume, as ``Attachments.list`` tells."""

    volume: str
    holder: Holder


class Attachment:
    """A volume open for a machine: hand ``descriptor`` to its VMM, then ``close`` our copy. The record stays."""

    def __init__(self, volume: str, machine: str, mode: AttachMode, descriptor: int) -> None:
        self.volume = volume
        self.machine = machine
        self.mode = mode
        self.descriptor = descriptor

    def close(self) -> None:
        """Close our copy; doing it twice is fine."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Attachments:
    """The records below ``root``. Any number of tasks, threads and processes may use them at once."""

    def __init__(self, root: Path, volumes: Opener, *, clock: Clock) -> None:
        self._root = root
        self._volumes = volumes
        self._clock = clock

    def prepare(self) -> None:
        """Make the directory, for its owner alone; an existing one is fine."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def acquire(self, volume: str, machine: str, mode: AttachMode) -> Attachment:
        """Attach a volume to a machine: alone to write, together with others to read.

        The machine that has it already, in the same mode, gets it again once its last VMM has let go of it: that is how
        a machine that was stopped comes back to its volumes.

        Raises:
            InvalidInput: a name is none.
            NotFound: there is no such volume.
            VolumeInUse: another machine has it, or a VMM of this one still does; ``details`` say which.
        """
        check_volume_name(volume)
        check_name(machine, what="machine")
        async with self._locked(volume):
            record = self._read(volume)
            _require_compatible(volume, record, machine, mode)
            descriptor = self._volumes.open(volume, mode)
            try:
                await self._take(descriptor, volume, machine, mode)
                if all(holder.machine != machine for holder in record.holders):
                    added = Holder(machine=machine, mode=mode, since=self._clock.now())
                    self._write(volume, [*record.holders, added])
            except BaseException:
                os.close(descriptor)
                raise
        return Attachment(volume, machine, mode, descriptor)

    async def release(self, volume: str, machine: str) -> None:
        """Forget an attachment whose VMM has let go of the volume, or ended; one that is not there is fine.

        Raises:
            VolumeInUse: a process still has the volume open in this machine's name: end its VMM first.
        """
        check_volume_name(volume)
        async with self._locked(volume):
            record = self._read(volume)
            remaining = [holder for holder in record.holders if holder.machine != machine]
            if len(remaining) == len(record.holders):
                return
            await self._require_gone(volume, machine)
            self._write(volume, remaining)

    async def release_machine(self, machine: str) -> None:
        """Release everything a machine has.

        Raises:
            VolumeInUse: its VMM lives; what it had no longer open was released all the same.
        """
        refused: list[HearthError] = []
        for claim in self.list():
            if claim.holder.machine == machine:
                try:
                    await self.release(claim.volume, machine)
                except HearthError as error:
                    refused.append(error)
        if refused:
            raise refused[0]

    def holders(self, volume: str) -> list[Holder]:
        """Tell who has a volume, by the record."""
        return self._read(check_volume_name(volume)).holders

    def list(self) -> list[Claim]:
        """Tell every attachment there is, for recovery: whose machine is no more is to be released."""
        names = sorted(path.name.removesuffix(RECORD_SUFFIX) for path in self._root.glob(f"*{RECORD_SUFFIX}"))
        return [Claim(volume=name, holder=holder) for name in names for holder in self._read(name).holders]

    @asynccontextmanager
    async def reserved(self, volume: str, *, for_reading: bool = False) -> AsyncIterator[None]:
        """Keep everybody from attaching a volume that nobody has, to delete, grow or clone it inside.

        Args:
            for_reading: machines that only read it may keep it.

        Raises:
            VolumeInUse: a machine has it.
        """
        check_volume_name(volume)
        async with self._locked(volume):
            for holder in self._read(volume).holders:
                if not for_reading or holder.mode is AttachMode.READ_WRITE:
                    raise volume_in_use(volume, _words(holder))
            yield

    async def _take(self, descriptor: int, volume: str, machine: str, mode: AttachMode) -> None:
        deadline_s = self._clock.monotonic() + GONE_TIMEOUT_S
        while holds.is_held_by(descriptor, machine) or not holds.take(descriptor, mode, machine):
            if self._clock.monotonic() >= deadline_s:
                raise volume_in_use(volume, "still open in a process that was to be gone")
            await self._clock.sleep(GONE_RETRY_S)
        if not self._is_current(descriptor, volume, mode):
            raise volume_in_use(volume, "being replaced at this moment")

    def _is_current(self, descriptor: int, volume: str, mode: AttachMode) -> bool:
        """Tell whether the name still stands for what was opened: it is another file once it has been grown."""
        again = self._volumes.open(volume, mode)
        try:
            return os.path.samestat(os.fstat(descriptor), os.fstat(again))
        finally:
            os.close(again)

    async def _require_gone(self, volume: str, machine: str) -> None:
        try:
            probe = self._volumes.open(volume, AttachMode.READ_ONLY)
        except NotFound:
            return  # somebody deleted the bytes by hand: there is nothing left to guard
        try:
            deadline_s = self._clock.monotonic() + GONE_TIMEOUT_S
            while holds.is_held_by(probe, machine):
                if self._clock.monotonic() >= deadline_s:
                    raise volume_in_use(volume, f"still open in the VMM of {machine}")
                await self._clock.sleep(GONE_RETRY_S)
        finally:
            os.close(probe)

    @asynccontextmanager
    async def _locked(self, volume: str) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            path = self._root / f"{volume}{LOCK_SUFFIX}"
            try:
                held = await stack.enter_async_context(locks.lock(path, timeout_s=LOCK_TIMEOUT_S))
            except TimedOut as error:
                raise volume_in_use(volume, "being deleted, grown or copied") from error
            try:
                yield
            finally:
                if not self._path(volume).exists():
                    held.discard()

    def _path(self, volume: str) -> Path:
        return self._root / f"{volume}{RECORD_SUFFIX}"

    def _read(self, volume: str) -> _Record:
        try:
            return msgspec.json.decode(self._path(volume).read_bytes(), type=_Record)
        except FileNotFoundError:
            return _Record()
        except msgspec.DecodeError as error:
            raise RecordDamaged(
                "a volume's record of attachments is damaged",
                details=f"{self._path(volume)}: {error}",
                resolution="make sure that no sandbox uses the volume, then delete that file",
            ) from error

    def _write(self, volume: str, holders: Sequence[Holder]) -> None:
        if holders:
            files.write_atomic(self._path(volume), msgspec.json.encode(_Record(holders=[*holders])))
            return
        with contextlib.suppress(FileNotFoundError):
            self._path(volume).unlink()
        files.sync_directory(self._root)


def _require_compatible(volume: str, record: _Record, machine: str, mode: AttachMode) -> None:
    for holder in record.holders:
        if holder.machine == machine:
            if holder.mode is not mode:
                raise volume_in_use(volume, f"{_words(holder)} already; detach it before attaching it {mode}")
        elif AttachMode.READ_WRITE in (holder.mode, mode):
            raise volume_in_use(volume, _words(holder))


def _words(holder: Holder) -> str:
    return f"attached to {holder.machine} ({holder.mode}, since {holder.since:%Y-%m-%d %H:%M:%S} UTC)"
