"""The image store: published artifacts under one directory, found by name, id or the key of what went into them.

images/
  kernel-<16 hex>/    one image: its files and manifest.json, named after their checksums, never changed
  names/<name>        the id that a name stands for
  owned/<user>/<name> the same of an image that only its user sees
  locks/              one lock file for each build under way
  downloads/          packages by checksum
  *.tmp               unfinished work, swept when nobody holds its lock
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import structlog

from hearth.config import DataDirectory
from hearth.errors import HearthError, InvalidInput, NotFound
from hearth.host import files, locks
from hearth.host.threads import on_own_thread
from hearth.image.progress import OnProgress, Progress
from hearth.model import NAME_PATTERN, ImageKind, check_name

log = structlog.get_logger(__name__)

MANIFEST = "manifest.json"
ID_DIGITS = 16
"""64 bits of SHA-256: enough to tell apart the images of one host."""
IMAGE_ID = re.compile(f"({'|'.join(ImageKind)})-[0-9a-f]{{{ID_DIGITS}}}")
BUILD_WAIT_S = 3600.0


class ImageDamaged(HearthError):
    """An image's files are not what its manifest says."""


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an image; sizes are apparent sizes in bytes."""

    sha256: str
    size_bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """``manifest.json``; ``primary`` is the file a machine boots from, ``key`` the hash of what it was made of."""

    id: str
    name: str
    kind: ImageKind
    key: str
    created_at: datetime
    primary: str
    files: dict[str, FileRecord]
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Image:
    """A published artifact. ``path`` is its primary file; ``current`` tells whether ``name`` stands for this one."""

    id: str
    name: str
    kind: ImageKind
    path: Path
    sha256: str
    size_bytes: int
    created_at: datetime
    facts: Mapping[str, Any]
    current: bool
    disk_bytes: int
    """What its primary file takes on disk, holes left out."""

    @property
    def owner(self) -> str | None:
        """The user whose it is; None is the whole host's."""
        return self.facts.get("owner")

    @property
    def directory(self) -> Path:
        """Where all its files are."""
        return self.path.parent


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a builder leaves in its staging directory: the primary file's name and what is worth knowing about it."""

    primary: str
    facts: Mapping[str, Any]


Builder = Callable[[Path], Awaitable[Made]]


def build_key(kind: ImageKind, inputs: Mapping[str, Any]) -> str:
    """Hash everything that goes into an image, in hex; equal inputs give equal keys on every host."""
    text = json.dumps({"kind": kind, **inputs}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class ImageStore:
    """Lists, builds, checks and removes images under ``data.images``. Several processes may use one store at once."""

    def __init__(self, data: DataDirectory) -> None:
        self.root = data.images
        self.downloads = self.root / "downloads"
        self._names = self.root / "names"
        self._owned = self.root / "owned"
        self._locks = self.root / "locks"

    def prepare(self) -> None:
        """Make the store's directories; existing ones are fine."""
        for directory in (self.root, self.downloads, self._names, self._locks):
            directory.mkdir(parents=True, exist_ok=True)

    def list(self) -> list[Image]:
        """Give every published image, newest first."""
        manifests = [self._read(path) for path in self.root.glob(f"*/{MANIFEST}") if is_final(path.parent)]
        images = [self._image(manifest) for manifest in manifests if manifest is not None]
        return sorted(images, key=lambda image: image.created_at, reverse=True)

    def get(self, name_or_id: str, *, owner: str | None = None) -> Image:
        """Give the image that a name stands for, or the one with this id, whosever it is.

        Args:
            owner: names of this user's images count, too, and first.

        Raises:
            NotFound: there is none; the details list the names there are.
        """
        image = self._find_id(name_or_id) or self._find_name(name_or_id, owner)
        if image is not None:
            return image
        known = ", ".join(sorted({image.name for image in self.list() if image.owner in (None, owner)})) or "none yet"
        raise NotFound(
            "no such image",
            details=f"image {name_or_id[:80]!r} does not exist; known: {known}",
            resolution="run 'hearth setup' to build the standard images",
            field="image",
        )

    async def verify(self, image: Image) -> None:
        """Read every byte of an image again and compare with its manifest.

        Raises:
            ImageDamaged: a file is missing, longer, shorter or different.
        """
        manifest = self._read(image.directory / MANIFEST)
        if manifest is None:
            raise damaged(image.directory, "the manifest is missing or unreadable")
        for name, record in manifest.files.items():
            file = image.directory / name
            if not file.is_file():
                raise damaged(file, "the file is missing")
            if (size := file.stat().st_size) != record.size_bytes:
                raise damaged(file, f"it has {size} bytes instead of {record.size_bytes}")
            if await hash_aside(file) != record.sha256:
                raise damaged(file, "its checksum is wrong")

    async def remove(self, name_or_id: str) -> None:
        """Remove one image; its name passes to the newest image left of that name. Running machines are not asked.

        Raises:
            NotFound: there is no such image.
        """
        image = self.get(name_or_id)
        async with self.alone(image.id) as doomed:
            image.directory.rename(doomed / "image")
            if image.current:
                left = [other for other in self.list() if (other.name, other.owner) == (image.name, image.owner)]
                if left:
                    self._point(image.name, left[0].id)
                else:
                    self.unname(image)

    def unname(self, image: Image) -> None:
        """Let an image's name stand for nothing, if it stands for this image; the image stays."""
        path = self._pointer(image.name, image.owner)
        if self._current(path) == image.id:
            path.unlink(missing_ok=True)

    async def obtain(
        self,
        kind: ImageKind,
        name: str,
        key: str,
        builder: Builder,
        on_progress: OnProgress,
        *,
        owner: str | None = None,
    ) -> Image:
        """Give the image made of ``key``, building it if there is none yet, and let ``name`` stand for it.

        Args:
            owner: the user whose image and name it is; ``key`` must be of that user alone, and of that name.

        Two processes that want the same key build it once: the second waits and gets the first's. Whatever ends a
        build, nothing half-made is ever listed.

        Raises:
            InvalidInput: ``name`` is no name, or stands for another kind of image.
            TimedOut: another process has been building this key for an hour.
        """
        check_name(name)
        self.prepare()
        if owner is None:
            self._check_kind(kind, name)
        label = f"{kind}-{key[:ID_DIGITS]}"

        def waiting() -> None:
            on_progress(Progress(stage=kind, fraction=None, message="another process is building this; waiting"))

        async with self.alone(label, on_wait=waiting) as staging:
            found = self._find(key)
            if found is None:
                with files.space_errors(self.root):
                    made = await builder(staging)
                    if owner is not None:
                        made = Made(primary=made.primary, facts={**made.facts, "owner": owner})
                    found = await on_own_thread("publish", lambda: self._publish(staging, kind, name, key, made))
            self._point(name, found.id, owner)
        return self.get(found.id)

    @asynccontextmanager
    async def alone(self, label: str, *, on_wait: Callable[[], None] | None = None) -> AsyncIterator[Path]:
        """Be the only one at work on ``label`` in any process, with an empty staging directory on the store's file
        system. What a killed predecessor left is deleted before, the directory after.

        Raises:
            TimedOut: another process has been at it for an hour.
        """
        async with locks.lock(self._locks / f"{label}.lock", timeout_s=BUILD_WAIT_S, on_wait=on_wait) as held:
            for left in self.root.glob(f"{label}.*{files.TEMPORARY_SUFFIX}"):
                await remove(left)
            staging = files.temporary_beside(self.root / label)
            staging.mkdir(mode=0o700)
            try:
                yield staging
            finally:
                await remove(staging)
                held.discard()

    def _publish(self, staging: Path, kind: ImageKind, name: str, key: str, made: Made) -> Manifest:
        records = {}
        for file in sorted(path for path in staging.rglob("*") if path.is_file()):
            file.chmod(0o444)
            record = FileRecord(sha256=files.hash_file(file), size_bytes=file.stat().st_size)
            records[str(file.relative_to(staging))] = record
        checksums = {name: record.sha256 for name, record in records.items()}
        if "owner" in made.facts:
            checksums[""] = key  # equal contents of two users, or of two names, are two images
        contents = json.dumps(checksums, sort_keys=True)
        manifest = Manifest(
            id=f"{kind}-{hashlib.sha256(contents.encode()).hexdigest()[:ID_DIGITS]}",
            name=name,
            kind=kind,
            key=key,
            created_at=datetime.now(UTC),
            primary=made.primary,
            files=records,
            facts=dict(made.facts),
        )
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
        files.write_atomic(staging / MANIFEST, text, mode=0o644)
        staging.chmod(0o755)
        final = self.root / manifest.id
        if not files.publish_directory(staging, final):
            # The same contents came out of other inputs: the image stays, and answers to the new key.
            files.write_atomic(final / MANIFEST, text, mode=0o644)
        log.info("image published", id=manifest.id, name=name, key=key[:ID_DIGITS])
        return manifest

    def sweep(self) -> None:
        """Delete what interrupted builds and removals left; builds that are running are not touched."""
        self.prepare()
        for path in self.root.glob(f"*{files.TEMPORARY_SUFFIX}"):
            held = locks.try_lock(self._locks / f"{path.name.split('.', 1)[0]}.lock")
            if held is not None:
                with held:
                    files.remove_tree(path)
                    held.discard()

    def _find_id(self, image_id: str) -> Image | None:
        if not IMAGE_ID.fullmatch(image_id):  # which keeps paths out, too
            return None
        manifest = self._read(self.root / image_id / MANIFEST)
        return None if manifest is None else self._image(manifest)

    def _find_name(self, name: str, owner: str | None) -> Image | None:
        if NAME_PATTERN.fullmatch(name) is None:
            return None
        for pointer in dict.fromkeys((self._pointer(name, owner), self._pointer(name, None))):
            if (image_id := self._current(pointer)) is not None:
                return self._find_id(image_id)
        return None

    def _find(self, key: str) -> Manifest | None:
        for path in self.root.glob(f"*/{MANIFEST}"):
            manifest = self._read(path) if is_final(path.parent) else None
            if manifest is not None and manifest.key == key:
                return manifest
        return None

    def _check_kind(self, kind: ImageKind, name: str) -> None:
        with suppress(NotFound):
            other = self.get(name).kind
            if other is not kind:
                raise InvalidInput("invalid name", details=f"name {name!r} is a {other} image's", field="name")

    def adopt_names(self) -> None:
        """Give the names of users' images to their users: they were everybody's once."""
        for image in self.list():
            path = self._names / image.name
            if image.owner is not None and self._current(path) == image.id:
                self._point(image.name, image.id, image.owner)
                path.unlink()

    def _point(self, name: str, image_id: str, owner: str | None = None) -> None:
        path = self._pointer(name, owner)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path, image_id.encode() + b"\n", mode=0o644)

    def _pointer(self, name: str, owner: str | None) -> Path:
        return self._names / name if owner is None else self._owned / owner / name

    def _current(self, path: Path) -> str | None:
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            return None

    def _image(self, manifest: Manifest) -> Image:
        primary = manifest.files[manifest.primary]
        return Image(
            id=manifest.id,
            name=manifest.name,
            kind=manifest.kind,
            path=self.root / manifest.id / manifest.primary,
            sha256=primary.sha256,
            size_bytes=primary.size_bytes,
            created_at=manifest.created_at,
            facts=manifest.facts,
            disk_bytes=taken_bytes(self.root / manifest.id / manifest.primary),
            current=self._current(self._pointer(manifest.name, manifest.facts.get("owner"))) == manifest.id,
        )

    def _read(self, path: Path) -> Manifest | None:
        """Give a manifest; None when it is gone or damaged, for one bad image must not hide the others."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=Manifest)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:
            log.warning("image manifest is damaged", path=str(path), error=str(error))
            return None


def taken_bytes(path: Path) -> int:
    """Tell what a file takes on disk; nothing when it went at this moment."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def is_final(directory: Path) -> bool:
    """Tell whether a directory in the store is a published image rather than unfinished work."""
    return not directory.name.endswith(files.TEMPORARY_SUFFIX)


async def remove(path: Path) -> None:
    """Remove a tree without holding up the event loop; a cancelled caller waits until it is gone."""
    await on_own_thread("remove", lambda: files.remove_tree(path))


async def hash_aside(path: Path) -> str:
    """Hash a file without holding up the event loop."""
    return await on_own_thread("hash", lambda: files.hash_file(path))


def damaged(path: Path, what: str) -> ImageDamaged:
    """Say which file is damaged and how to get a good one."""
    return ImageDamaged(
        "an image is damaged",
        details=f"{path}: {what}",
        resolution="remove the image and run 'hearth setup' again",
    )
