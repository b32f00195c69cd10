"""A snapshot's way from staging to consumed, and every way its directory can be damaged."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from tests.engine.snapshots import IMAGE_SHA256, PAGE, STAMP, make_stopped, make_template, manifest

from hearth.engine.base import SnapshotRefused, VolumeSeal
from hearth.engine.manifest import MIB, FileRecord, MemoryBase, VolumeRecord, decode, encode
from hearth.engine.memory_image import read_diff, write_full
from hearth.engine.snapshot import (
    DISK,
    MANIFEST,
    MEMORY_DIFF,
    MEMORY_FULL,
    STATE,
    consume,
    discard,
    is_consumed,
    load,
    load_all,
    publish,
    record,
    require_fit,
    require_same_disk,
    require_same_volumes,
    stage,
    sweep,
    verify,
    write_manifest,
)
from hearth.errors import Conflict

BASE = MemoryBase(id="t1", block_hash=hashlib.sha256(b"base").hexdigest())
MAKE_FOR_EVER = """
import sys
from pathlib import Path
from tests.engine.snapshots import make_template
from hearth.engine.snapshot import consume
root = Path(sys.argv[1])
for turn in range(10**9):
    consume(make_template(root, "s1"))
    print(turn, flush=True)
    make_template(root, f"t{turn}")
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


def test_published_snapshot_is_whole_private_and_alone(root: Path) -> None:
    directory = make_template(root, "t1")
    assert directory == root / "t1"
    assert [path.name for path in root.iterdir()] == ["t1"]
    assert directory.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert modes == dict.fromkeys([MANIFEST, MEMORY_FULL, STATE, DISK], 0o600)
    found = verify(directory)
    assert found.directory == directory
    assert (found.id, found.manifest.cpus, found.manifest.drives) == ("t1", 1, ("root",))
    assert found.disk == directory / DISK
    assert found.base is None
    assert found.memory_record.size_bytes == MIB
    assert 3 * PAGE <= found.size_bytes < MIB // 4


def test_stopped_machine_knows_its_base_and_its_disk(root: Path, tmp_path: Path) -> None:
    disk = tmp_path / "root.qcow2"
    disk.write_bytes(b"disk")
    found = verify(make_stopped(root, "s1", BASE, disk))
    assert found.disk is None
    assert found.base == root / "t1"
    with read_diff(found.memory, MIB, expected=found.memory_record) as diff:
        assert bytes(diff.data) == b"b" * PAGE
    require_same_disk(found.manifest, disk)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def to_symlink(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def to_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "is missing"),
        (cut, "bytes instead of"),
        (lengthen, "bytes instead of"),
        (flip, "the checksum of {} is wrong"),
        (to_symlink, "is not a regular file"),
        (to_directory, "is not a regular file"),
    ],
)
@pytest.mark.parametrize("name", [MEMORY_FULL, STATE, DISK])
def test_damaged_file_is_refused_by_name(root: Path, name: str, damage: Callable[[Path], None], words: str) -> None:
    directory = make_template(root, "t1")
    damage(directory / name)
    with pytest.raises(SnapshotRefused, match=words.format(name)) as caught:
        verify(directory)
    assert f"t1: {name} " in caught.value.details or words.format(name) in caught.value.details
    assert "--force" in caught.value.resolution


def test_one_bit_in_a_hole_of_the_memory_is_noticed(root: Path) -> None:
    directory = make_template(root, "t1")
    with (directory / MEMORY_FULL).open("r+b") as file:
        file.seek(100 * PAGE)
        file.write(b"\1")
    with pytest.raises(SnapshotRefused, match="the checksum of memory is wrong"):
        verify(directory)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (Path.unlink, "its manifest is missing"),
        (cut, "manifest"),
        (to_directory, "its manifest cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b""), "its manifest cannot be read"),
        (lambda path: os.truncate(path, 2 << 20), "its manifest cannot be read"),
    ],
)
def test_damaged_manifest_is_refused(root: Path, damage: Callable[[Path], None], words: str) -> None:
    directory = make_template(root, "t1")
    if damage is cut:
        os.truncate(directory / MANIFEST, 100)
    else:
        damage(directory / MANIFEST)
    with pytest.raises(SnapshotRefused, match=words):
        load(directory)


def test_directory_under_another_name_is_refused(root: Path) -> None:
    make_template(root, "t1").rename(root / "t2")
    with pytest.raises(SnapshotRefused, match="t2: its manifest is that of 't1'"):
        load(root / "t2")


def test_missing_snapshot_is_refused(root: Path) -> None:
    with pytest.raises(SnapshotRefused, match="t1: there is no such snapshot"):
        load(root / "t1")


def test_snapshot_without_manifest_is_not_published(root: Path) -> None:
    staging = stage(root / "t1")
    try:
        with pytest.raises(SnapshotRefused, match="without a manifest"):
            publish(staging, root / "t1")
        assert not (root / "t1").exists()
    finally:
        sweep(root)


def test_manifest_of_files_that_are_not_there_is_not_written(root: Path) -> None:
    staging = stage(root / "t1")
    try:
        memory = write_full(staging / MEMORY_FULL, MIB, [], b"")
        (staging / DISK).write_bytes(b"disk")
        files = {MEMORY_FULL: memory, DISK: record(staging / DISK)}
        lengthen(staging / DISK)
        with pytest.raises(SnapshotRefused, match=r"disk\.qcow2 has 5 bytes instead of 4"):
            write_manifest(staging, manifest("t1", files))
        (staging / DISK).unlink()
        with pytest.raises(SnapshotRefused, match=r"disk\.qcow2 is missing"):
            write_manifest(staging, manifest("t1", files))
        assert not (staging / MANIFEST).exists()
    finally:
        sweep(root)


def test_symlink_in_staging_is_not_published(root: Path) -> None:
    staging = stage(root / "t1")
    try:
        (staging / MANIFEST).write_bytes(b"{}")
        (staging / "secret").symlink_to("/etc/shadow")
        with pytest.raises(SnapshotRefused, match="'secret' is not a regular file"):
            publish(staging, root / "t1")
    finally:
        sweep(root)


def test_snapshot_is_never_replaced(root: Path) -> None:
    make_template(root, "t1")
    before = (root / "t1" / MANIFEST).read_bytes()
    with pytest.raises(Conflict, match="t1"):
        make_template(root, "t1")
    assert (root / "t1" / MANIFEST).read_bytes() == before
    assert len(sweep(root)) == 1


def test_consumed_memory_is_never_started_from_again(root: Path) -> None:
    directory = make_template(root, "s1")
    assert not is_consumed(directory)
    files = consume(directory)
    assert is_consumed(directory)
    assert (files / MEMORY_FULL).stat().st_size == MIB
    with pytest.raises(SnapshotRefused, match="its memory was set running already"):
        load(directory)
    with pytest.raises(SnapshotRefused, match="its memory was set running already"):
        consume(directory)
    with pytest.raises(SnapshotRefused, match="there is no such snapshot"):
        consume(root / "s2")


def test_next_snapshot_of_that_name_takes_the_place_of_the_consumed_one(root: Path) -> None:
    consume(make_template(root, "s1"))
    directory = make_template(root, "s1")
    assert not is_consumed(directory)
    verify(directory)
    assert [path.name for path in root.iterdir()] == ["s1"]


def test_consuming_beside_an_older_consumed_one_keeps_the_younger(root: Path) -> None:
    # As after a crash between publishing the next snapshot and deleting what was left of the last.
    consume(make_template(root, "s1")).rename(root / "aside")
    directory = make_template(root, "s1")
    (root / "aside").rename(root / "s1.consumed")
    (directory / "younger").touch()
    assert not is_consumed(directory)
    assert (consume(directory) / "younger").exists()


def test_discarded_snapshot_leaves_nothing_consumed_or_not(root: Path) -> None:
    discard(make_template(root, "s1"))
    consume(make_template(root, "s2"))
    discard(root / "s2")
    discard(root / "s3")
    assert list(root.iterdir()) == []


def test_sweep_takes_unfinished_work_only(root: Path) -> None:
    make_template(root, "t1")
    consume(make_template(root, "s1"))
    staging = stage(root / "t2")
    (staging / MEMORY_FULL).write_bytes(b"half")
    assert sweep(root) == [staging.name]
    assert sorted(path.name for path in root.iterdir()) == ["s1.consumed", "t1"]
    assert sweep(root / "none") == []


def test_one_damaged_snapshot_does_not_hide_the_others(root: Path) -> None:
    make_template(root, "t1")
    (make_template(root, "t2") / MANIFEST).unlink()
    consume(make_template(root, "s1"))
    stage(root / "t3")
    manifests, damaged = load_all(root)
    assert list(manifests) == ["t1"]
    assert list(damaged) == ["t2"]
    assert "its manifest is missing" in damaged["t2"].details
    assert load_all(root / "none") == ({}, {})
    sweep(root)


def test_killed_maker_leaves_whole_snapshots_and_what_a_sweep_takes(root: Path) -> None:
    for lines in range(2, 10):
        command = [sys.executable, "-c", MAKE_FOR_EVER, str(root)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as maker:
            assert maker.stdout is not None
            for _ in range(lines):
                maker.stdout.readline()
            maker.send_signal(signal.SIGKILL)
        sweep(root)
        found = [path for path in root.iterdir() if path.suffix != ".consumed"]
        assert found
        for directory in found:
            verify(directory)
            discard(directory)


def test_snapshot_fits_the_machine_it_was_taken_of(root: Path) -> None:
    found = load(make_template(root, "t1")).manifest
    require_fit(found, stamp=STAMP, cpus=1, memory_mib=1, rootfs=IMAGE_SHA256)


def test_all_that_does_not_fit_is_told_at_once(root: Path) -> None:
    found = load(make_template(root, "t1")).manifest
    other = msgspec.structs.replace(STAMP, vmm_version="10.0.2", agent="agent-ffff")
    with pytest.raises(SnapshotRefused) as caught:
        require_fit(found, stamp=other, cpus=2, memory_mib=512, rootfs="f" * 64)
    assert caught.value.details == (
        "t1: VMM version: 7.2.22 when it was taken, 10.0.2 now; "
        "agent: agent-0123456789abcdef when it was taken, agent-ffff now; "
        "CPUs: 1 when it was taken, 2 now; memory: 1 MiB when it was taken, 512 MiB now; "
        f"root file system: {IMAGE_SHA256[:12]} when it was taken, ffffffffffff now"
    )


def touch_later(disk: Path) -> None:
    status = disk.stat()
    os.utime(disk, ns=(status.st_atime_ns, status.st_mtime_ns + 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (touch_later, "was written to after the memory was taken"),
        (lengthen, "was written to after the memory was taken"),
        (Path.unlink, "cannot be looked at"),
    ],
)
def test_memory_never_meets_another_disk(
    root: Path, tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    disk = tmp_path / "root.qcow2"
    disk.write_bytes(b"disk")
    found = load(make_stopped(root, "s1", BASE, disk)).manifest
    change(disk)
    with pytest.raises(SnapshotRefused, match=words):
        require_same_disk(found, disk)


def test_snapshot_with_its_own_disk_is_no_machines(root: Path) -> None:
    directory = make_template(root, "t1")
    with pytest.raises(SnapshotRefused, match="belongs to no machine's"):
        require_same_disk(load(directory).manifest, directory / DISK)


def test_record_makes_a_file_private_and_knows_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / MEMORY_DIFF
    path.write_bytes(b"abc")
    path.chmod(0o644)
    expected = hashlib.sha256(hashlib.sha256(b"abc").digest()).hexdigest()
    assert record(path) == FileRecord(size_bytes=3, block_hash=expected)
    assert path.stat().st_mode & 0o777 == 0o600


KNOWN = VolumeRecord(place=0, volume="vol-1", mount="/srv/data", read_only=False, size_bytes=MIB, mtime_ns=7)
SAME = VolumeSeal(**msgspec.structs.asdict(KNOWN))


def test_memory_meets_the_volumes_it_knows_as_they_were() -> None:
    require_same_volumes("s1", [], [])
    require_same_volumes("s1", [KNOWN], [SAME])


@pytest.mark.parametrize(
    ("known", "found", "words"),
    [
        ([KNOWN], [], "place 0: vol-1 .* now none"),
        ([], [SAME], "place 0: none, now vol-1"),
        ([KNOWN], [replace(SAME, volume="vol-2")], "vol-1 .* now vol-2"),
        ([KNOWN], [replace(SAME, mtime_ns=8)], "written at 7 ns.* now .*written at 8 ns"),
        ([KNOWN], [replace(SAME, size_bytes=2 * MIB)], "1048576 bytes.* now .*2097152 bytes"),
        ([KNOWN], [replace(SAME, read_only=True)], "read-write.* now .*read-only"),
        ([KNOWN], [replace(SAME, mount="/mnt")], "at /srv/data, now .* at /mnt"),
        ([KNOWN], [replace(SAME, place=1)], "place 0: .*; place 1: none"),
    ],
)
def test_memory_never_meets_other_volumes(known: list[VolumeRecord], found: list[VolumeSeal], words: str) -> None:
    with pytest.raises(SnapshotRefused, match=f"its volumes are not as they were: .*{words}"):
        require_same_volumes("s1", known, found)


def test_a_manifest_tells_its_volumes_and_may_have_none(root: Path) -> None:
    plain = load(make_template(root, "t1")).manifest
    assert plain.volumes == ()
    with_volumes = msgspec.structs.replace(plain, volumes=(KNOWN,))
    assert decode(encode(with_volumes), name="t1") == with_volumes
    with pytest.raises(SnapshotRefused, match="two volumes are in one place"):
        encode(msgspec.structs.replace(plain, volumes=(KNOWN, KNOWN)))
