"""What the shelf keeps of a fork while its copies start, and when they have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.control.test_shelf import ADA, Place
from tests.engine.snapshots import PAGE

from hearth.control.templates import RETIRED
from hearth.engine.manifest import MIB, FileRecord, Memory, MemoryKind
from hearth.engine.memory_image import write_diff
from hearth.engine.snapshot import DISK, MANIFEST, MEMORY_DIFF, MEMORY_FULL, load, write_manifest
from hearth.host.memory import Extent


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(tmp_path / "data")
    await place.store.users.create(ADA)
    yield place
    await place.shelf.close()


def forked(place: Place) -> Path:
    """Give a fork over a template, its memory a diff."""
    place.template("tpl-1")
    directory = place.over("fork-1", "tpl-1")
    manifest = load(directory).manifest
    memory = write_diff(directory / MEMORY_DIFF, MIB, [Extent(0, PAGE)], b"b" * PAGE)
    files: dict[str, FileRecord] = {**manifest.files, MEMORY_DIFF: memory}
    del files[MEMORY_FULL]
    base = load(place.data.snapshot("tpl-1")).manifest.full_memory
    diff = Memory(kind=MemoryKind.DIFF, file=MEMORY_DIFF, base=base)
    (directory / MEMORY_FULL).unlink()
    (directory / MANIFEST).unlink()
    write_manifest(directory, msgspec.structs.replace(manifest, memory=diff, files=files))
    return directory


async def test_memory_below_copies_goes_when_nobody_holds_the_fork_any_more(place: Place) -> None:
    fork = forked(place)
    await place.sandbox("copy", origin="fork-1")
    with place.shelf.pin("fork-1"):
        assert await place.shelf.sweep() == []
        assert (fork / MEMORY_DIFF).exists(), "another copy is starting"
    assert await place.shelf.sweep() == []
    assert sorted(path.name for path in fork.iterdir()) == [DISK, MANIFEST]
    assert load(fork).manifest.memory.dropped
    assert "tpl-1" in place.names()
    assert await place.shelf.sweep() == []


async def test_a_fork_whose_manifest_was_changed_is_left_alone_and_hinders_nobody(place: Place) -> None:
    fork = forked(place)
    await place.sandbox("copy", origin="fork-1")
    text = (fork / MANIFEST).read_text().replace('"cpus": 1', '"cpus": 2')
    (fork / MANIFEST).write_text(text)
    assert await place.shelf.sweep() == []
    assert (fork / MEMORY_DIFF).exists()


async def test_a_retired_template_goes_once_nothing_lies_over_it_whatever_is_left_of_it(place: Place) -> None:
    place.over("fork-1", place.template("tpl-1").name)
    sandbox = await place.sandbox("copy", origin="fork-1")
    (place.data.snapshot("tpl-1") / RETIRED).write_text("damaged")
    torn = place.template("tpl-torn")
    (torn / RETIRED).write_text("damaged")
    (torn / MANIFEST).write_text("{")
    assert await place.shelf.sweep() == ["tpl-torn"]
    assert [template.is_stale for template in await place.shelf.templates()] == [True]
    await place.remove(sandbox)
    assert sorted(await place.shelf.sweep()) == ["fork-1", "tpl-1"]
