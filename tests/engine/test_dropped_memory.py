"""Snapshots whose memory nobody will start from any more: the disk that others lie over stays."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest
from tests.engine.snapshots import IMAGE_SHA256, PAGE, STAMP, make_template, manifest

from hearth.engine.base import SnapshotRefused
from hearth.engine.layers import direct_needs
from hearth.engine.manifest import MIB, Memory, MemoryBase, MemoryKind
from hearth.engine.memory_image import write_diff
from hearth.engine.snapshot import (
    DISK,
    MANIFEST,
    MEMORY_DIFF,
    STATE,
    drop_memory,
    load,
    publish,
    record,
    require_fit,
    stage,
    verify,
    write_manifest,
)
from hearth.host.memory import Extent

BASE = MemoryBase(id="t1", block_hash=hashlib.sha256(b"base").hexdigest())


@pytest.fixture
def fork(tmp_path: Path) -> Path:
    final = tmp_path / "fork-1"
    staging = stage(final)
    memory = write_diff(staging / MEMORY_DIFF, MIB, [Extent(0, PAGE)], b"b" * PAGE)
    (staging / STATE).write_bytes(b"registers")
    (staging / DISK).write_bytes(b"disk" * 1000)
    made = manifest(
        final.name,
        {MEMORY_DIFF: memory, STATE: record(staging / STATE), DISK: record(staging / DISK)},
        memory=Memory(kind=MemoryKind.DIFF, file=MEMORY_DIFF, base=BASE),
    )
    write_manifest(staging, made)
    publish(staging, final)
    return final


def test_the_disk_stays_and_is_whole(fork: Path) -> None:
    before = load(fork)
    size_bytes = before.size_bytes
    assert drop_memory(fork)
    after = verify(fork)
    assert sorted(path.name for path in fork.iterdir()) == [DISK, MANIFEST]
    assert after.manifest.files == {DISK: before.manifest.files[DISK]}
    assert after.manifest.full_memory == BASE
    assert direct_needs(after.manifest) == direct_needs(before.manifest)
    assert 0 < after.size_bytes < size_bytes
    assert not drop_memory(fork), "once is enough"


def test_no_machine_starts_from_it(fork: Path) -> None:
    drop_memory(fork)
    with pytest.raises(SnapshotRefused, match="its memory was dropped when all its copies had started"):
        require_fit(load(fork).manifest, stamp=STAMP, cpus=1, memory_mib=1, rootfs=IMAGE_SHA256)


def test_full_memory_stays_for_others_may_be_relative_to_it(tmp_path: Path) -> None:
    whole = make_template(tmp_path, "fork-2")
    names = sorted(path.name for path in whole.iterdir())
    assert not drop_memory(whole)
    assert sorted(path.name for path in whole.iterdir()) == names


def test_a_crash_before_the_files_went_leaves_a_whole_snapshot(fork: Path) -> None:
    left = {name: (fork / name).read_bytes() for name in (MEMORY_DIFF, STATE)}
    drop_memory(fork)
    for name, content in left.items():
        (fork / name).write_bytes(content)
    assert msgspec.structs.asdict(verify(fork).manifest)["memory"].dropped
