"""The file of a backup: a ZIP of members packed with Zstandard, each with its SHA-256 in a manifest written last.

It is readable by its owner alone, appears under its name when it is whole, and never replaces another file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import zstandard

from hearth.errors import Conflict, HearthError, HostUnfit, InvalidInput
from hearth.host.files import space_errors, sync_directory, temporary_beside

FORMAT = 1
MANIFEST = "manifest.json"
CHUNK_BYTES = 1024 * 1024
LEVEL = 3
MAX_MANIFEST_BYTES = 64 * 1024 * 1024


class BackupDamaged(HearthError):
    """A backup is not whole, or not one; ``details`` tell where."""


class VolumeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A volume: its bytes are in the backup, or ``left_out`` tells why not."""

    id: str
    size_bytes: int
    left_out: str | None = None


class MemberEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A member: its size and hash, unpacked."""

    name: str
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds.

    Args:
        format: of this file; a later one is refused.
        revision: the version of the database's schema.
        host: the id of the data directory it was made of.
        keys: whether keys are in it, sealed.
        tables: how many rows of each, in the order they must be filled.
        links: the volumes that are provisioned ones, each with what it leads to; not the provisioned ones themselves.
    """

    format: int
    hearth: str
    created_at: datetime
    database: str
    revision: str
    host: str
    host_name: str
    keys: bool
    tables: dict[str, int]
    volumes: list[VolumeEntry]
    members: list[MemberEntry]
    links: list[str] = []


class BackupWriter:
    """Writes a new file."""

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise Conflict("the file exists already", details=str(path), resolution="choose another name", field="file")
        self._path = path
        self._temporary = temporary_beside(path)
        try:
            descriptor = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HostUnfit("the backup cannot be written", details=f"{path}: {error.strerror}") from error
        self._file = open(descriptor, "w+b")  # noqa: SIM115  closed at the end of the context
        self._zip = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED, allowZip64=True)
        self.members: list[MemberEntry] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._zip.close()
        self._file.close()
        self._temporary.unlink(missing_ok=True)

    def add(self, name: str, chunks: Iterable[bytes]) -> None:
        """Pack a member.

        Raises:
            NoSpace: the file system is full.
        """
        digest, size = hashlib.sha256(), 0
        packer = zstandard.ZstdCompressor(level=LEVEL).compressobj()
        with space_errors(self._path), self._zip.open(name, "w", force_zip64=True) as member:
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                member.write(packer.compress(chunk))
            member.write(packer.flush())
        self.members.append(MemberEntry(name=name, size_bytes=size, sha256=digest.hexdigest()))

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest and give the file its name.

        Raises:
            Conflict: somebody else made a file of that name meanwhile.
        """
        with space_errors(self._path):
            self._zip.writestr(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
            self._zip.close()
            self._file.flush()
            os.fsync(self._file.fileno())
        try:
            os.link(self._temporary, self._path)
        except FileExistsError as error:
            raise Conflict("the file exists already", details=str(self._path), field="file") from error
        sync_directory(self._path.parent)


class BackupReader:
    """Reads a file; nothing of it is believed before its hash was right."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except OSError as error:
            raise InvalidInput(
                "the backup cannot be opened", details=f"{path}: {error.strerror}", field="file"
            ) from error
        except zipfile.BadZipFile as error:
            raise _damaged(path, "it is no backup, or its end is missing") from error
        try:
            self.manifest = self._read_manifest()
        except BaseException:
            self._zip.close()
            raise
        self._members = {each.name: each for each in self.manifest.members}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    def chunks(self, name: str) -> Iterator[bytes]:
        """Unpack a member; what was given is right once the iterator has ended.

        Raises:
            BackupDamaged: size or hash are others, or it is not there.
        """
        entry = self._members.get(name)
        if entry is None:
            raise _damaged(self._path, f"{name} is missing")
        digest, size = hashlib.sha256(), 0
        try:
            with self._zip.open(name) as packed, zstandard.ZstdDecompressor().stream_reader(packed) as member:
                while chunk := member.read(CHUNK_BYTES):
                    digest.update(chunk)
                    size += len(chunk)
                    if size > entry.size_bytes:
                        break
                    yield chunk
        except (KeyError, OSError, zipfile.BadZipFile, zstandard.ZstdError) as error:
            raise _damaged(self._path, f"{name}: {error}") from error
        if size != entry.size_bytes or digest.hexdigest() != entry.sha256:
            raise _damaged(self._path, f"{name} is not what was written")

    def lines(self, name: str) -> Iterator[bytes]:
        """Unpack a member line by line."""
        rest = b""
        for chunk in self.chunks(name):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from whole
        if rest:
            yield rest

    def verify(self) -> None:
        """Read everything.

        Raises:
            BackupDamaged: something is not what was written.
        """
        for name in self._members:
            for _ in self.chunks(name):
                pass

    def _read_manifest(self) -> Manifest:
        try:
            if self._zip.getinfo(MANIFEST).file_size > MAX_MANIFEST_BYTES:
                raise ValueError("it is too large")
            manifest = msgspec.json.decode(self._zip.read(MANIFEST), type=Manifest)
        except (KeyError, ValueError, zipfile.BadZipFile, msgspec.DecodeError) as error:
            raise _damaged(self._path, f"its manifest: {error}") from error
        if manifest.format > FORMAT:
            raise InvalidInput(
                "the backup was written by a later version of hearth",
                details=f"format {manifest.format}, by hearth {manifest.hearth}; this version reads up to {FORMAT}",
                resolution="restore it with that version",
                field="file",
            )
        return manifest


def _damaged(path: Path, what: str) -> BackupDamaged:
    return BackupDamaged("the backup is damaged", details=f"{path}: {what}", resolution="use another one")
