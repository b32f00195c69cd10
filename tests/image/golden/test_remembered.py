"""Sources of which another daemon has asked: notes spare questions, and never replace a check."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from hearth.host.clock import ManualClock
from hearth.image.golden.base import Head, SourceChanged
from hearth.image.golden.remembered import KEPT_S, RememberedSource
from hearth.store.notes import MemoryNotes


class Shelf:
    """A source in memory that counts what it is asked."""

    url = identity = "s3://bucket/a"

    def __init__(self, content: bytes, *, beside: bytes | None = None, validator: str = "e1") -> None:
        self.content, self.beside, self.validator = content, beside, validator
        self.asked: list[str] = []

    async def head(self) -> Head:
        self.asked.append("head")
        return Head(size_bytes=len(self.content), validator=self.validator)

    async def checksum_file(self) -> bytes | None:
        self.asked.append("checksum")
        return self.beside

    async def read(self, head: Head, start: int, end: int) -> AsyncGenerator[memoryview, None]:
        if head.validator != self.validator:
            raise SourceChanged("changed")
        yield memoryview(self.content[start:end])

    async def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def notes(clock: ManualClock) -> MemoryNotes:
    return MemoryNotes(clock)


@pytest.mark.parametrize("beside", [None, b"", b"\xffabc"])
async def test_the_second_daemon_asks_nothing_until_the_note_is_old(
    notes: MemoryNotes, clock: ManualClock, beside: bytes | None
) -> None:
    shelf = Shelf(b"abc", beside=beside)
    told = []
    for _ in range(3):
        source = RememberedSource(shelf, notes)
        told.append((await source.head(), await source.checksum_file()))
    assert told == [told[0]] * 3
    assert shelf.asked == ["head", "checksum"]
    clock.advance(KEPT_S)
    await RememberedSource(shelf, notes).head()
    assert shelf.asked == ["head", "checksum", "head"]


async def test_an_object_without_an_etag_is_asked_each_time(notes: MemoryNotes) -> None:
    shelf = Shelf(b"abc", validator="")
    for _ in range(2):
        source = RememberedSource(shelf, notes)
        await source.head()
        await source.checksum_file()
    assert shelf.asked == ["head", "checksum"] * 2


async def test_an_object_that_was_replaced_is_seen_by_who_reads_it_and_its_note_forgotten(notes: MemoryNotes) -> None:
    await RememberedSource(Shelf(b"abc"), notes).head()
    shelf = Shelf(b"other", validator="e2")
    source = RememberedSource(shelf, notes)
    head = await source.head()
    assert source.is_from_note
    with pytest.raises(SourceChanged):
        [_ async for _ in source.read(head, 0, 3)]
    assert await source.forget()
    assert (await source.head()).validator == "e2"
    assert not await source.forget()


@pytest.mark.parametrize(
    "note",
    [
        "x",
        "[]",
        '{"size_bytes":-1,"validator":"e","version":null,"has_ranges":true,"beside":null,"is_beside_known":true}',
        '{"size_bytes":9,"validator":"","version":null,"has_ranges":true,"beside":null,"is_beside_known":true}',
        '{"size_bytes":9,"validator":"e","version":null,"has_ranges":true,"beside":"!","is_beside_known":true}',
    ],
)
async def test_a_note_that_makes_no_sense_is_none(notes: MemoryNotes, note: str) -> None:
    shelf = Shelf(b"abc")
    source = RememberedSource(shelf, notes)
    await notes.put(source._key, note, kept_s=600)
    assert (await source.head()).size_bytes == 3
