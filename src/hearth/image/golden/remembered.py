"""A source of which another daemon has just asked: what it told is believed for a moment, the bytes never are.

What is fetched is still pinned to the ETag and verified against the checksum, by the source itself and by the cache. A
note that turns out old is forgotten, and its object asked anew.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from hearth.image.golden.base import CHECKSUM_FILE_MAX_BYTES, Head, Source, SourceChanged

KEPT_S = 10.0
"""So long an object that was replaced may still be taken for the one before."""


class Notes(Protocol):
    """Where daemons leave each other notes: see ``hearth.store.notes``."""

    async def get(self, key: str) -> str | None: ...
    async def put(self, key: str, text: str, *, kept_s: float) -> None: ...
    async def forget(self, key: str) -> None: ...


class _Note(msgspec.Struct, frozen=True, kw_only=True):
    """``beside`` is the checksum file in base64, None where there is none."""

    size_bytes: int
    validator: str
    version: str | None
    has_ranges: bool
    beside: str | None
    is_beside_known: bool


class RememberedSource:
    """Implements ``hearth.image.golden.base.Source`` around one that keeps nothing of its ``head`` for later."""

    def __init__(self, source: Source, notes: Notes) -> None:
        self._source = source
        self._notes = notes
        self._key = f"head:{hashlib.sha256(source.identity.encode()).hexdigest()}"
        self._note: _Note | None = None
        self.is_from_note = False
        """Whether something of what was told so far came from a note."""

    @property
    def url(self) -> str:
        return self._source.url

    @property
    def identity(self) -> str:
        return self._source.identity

    async def head(self) -> Head:
        self._note = _read(await self._notes.get(self._key))
        if self._note is not None:
            self.is_from_note = True
            note = self._note
            return Head(
                size_bytes=note.size_bytes,
                validator=note.validator,
                version=note.version,
                has_ranges=note.has_ranges,
            )
        found = await self._source.head()
        if found.validator:  # without one nothing would tell that it is another object by now
            self._note = _Note(
                size_bytes=found.size_bytes,
                validator=found.validator,
                version=found.version,
                has_ranges=found.has_ranges,
                beside=None,
                is_beside_known=False,
            )
            await self._keep(self._note)
        return found

    async def checksum_file(self) -> bytes | None:
        note = self._note
        if note is not None and note.is_beside_known:
            return None if note.beside is None else base64.b64decode(note.beside)
        found = await self._source.checksum_file()
        if note is not None:
            beside = None if found is None else base64.b64encode(found).decode()
            self._note = msgspec.structs.replace(note, beside=beside, is_beside_known=True)
            await self._keep(self._note)
        return found

    async def read(self, head: Head, start: int, end: int) -> AsyncGenerator[memoryview, None]:
        try:
            async with contextlib.aclosing(self._source.read(head, start, end)) as pieces:
                async for piece in pieces:
                    yield piece
        except SourceChanged:
            await self._notes.forget(self._key)
            raise

    async def close(self) -> None:
        await self._source.close()

    async def forget(self) -> bool:
        """Forget what is noted; tell whether any of it was used, so that asking anew may give something else."""
        was_from_note, self.is_from_note, self._note = self.is_from_note, False, None
        await self._notes.forget(self._key)
        return was_from_note

    async def _keep(self, note: _Note) -> None:
        await self._notes.put(self._key, msgspec.json.encode(note).decode(), kept_s=KEPT_S)


def _read(text: str | None) -> _Note | None:
    """Read a note, which anybody who may write to the server could have left."""
    if text is None:
        return None
    try:
        note = msgspec.json.decode(text, type=_Note)
        beside = b"" if note.beside is None else base64.b64decode(note.beside, validate=True)
    except (msgspec.DecodeError, binascii.Error):
        return None
    is_sound = note.size_bytes > 0 and bool(note.validator) and len(beside) <= CHECKSUM_FILE_MAX_BYTES
    return note if is_sound else None
