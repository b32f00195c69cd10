"""What a manifest may say, and the words for what it may not."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.snapshots import EMPTY, IMAGE_SHA256, ROOTFS_LAYER, STAMP, plain

from hearth.engine.base import SnapshotRefused
from hearth.engine.manifest import (
    MIB,
    STAMP_WORDS,
    Disk,
    FileRecord,
    Layer,
    LayerKind,
    Memory,
    MemoryBase,
    MemoryKind,
    OwnDisk,
    Stamp,
    decode,
    differences,
    encode,
)
from hearth.engine.snapshot import MEMORY_DIFF, MEMORY_FULL

Text = dict[str, Any]


def text_of(**changes: Any) -> Text:
    text: Text = json.loads(encode(plain("t1", **changes)))
    return text


def read(text: Text) -> object:
    return decode(json.dumps(text).encode(), name="t1")


STOPPED = {
    "memory": Memory(kind=MemoryKind.DIFF, file=MEMORY_DIFF, base=MemoryBase(id="t0", block_hash=IMAGE_SHA256)),
    "disk": Disk(layers=(ROOTFS_LAYER,), stays=OwnDisk(size_bytes=5, mtime_ns=1_700_000_000_123_456_789)),
    "files": {MEMORY_DIFF: EMPTY},
}


@pytest.mark.parametrize("changes", [{}, STOPPED])
def test_manifest_is_read_as_it_was_written(changes: Text) -> None:
    manifest = plain("t1", **changes)
    assert decode(encode(manifest), name="t1") == manifest


def set_to(*path: str | int, value: object) -> Callable[[Text], None]:
    def change(text: Text) -> None:
        place: Any = text
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


def without(*path: str | int) -> Callable[[Text], None]:
    def change(text: Text) -> None:
        place: Any = text
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_to("cpus", value="1"),
        set_to("cpus", value=1.0),
        set_to("cpus", value="1.0"),
        set_to("version", value=2.0),
        set_to("version", value="2"),
        set_to("memory_mib", value="1"),
        set_to("files", MEMORY_FULL, "size_bytes", value=float(MIB)),
        set_to("files", MEMORY_FULL, "size_bytes", value=str(MIB)),
    ],
)
def test_numbers_as_text_or_floats_are_read_right(change: Callable[[Text], None]) -> None:
    text = text_of()
    change(text)
    assert read(text) == plain("t1")


def test_large_numbers_are_exact() -> None:
    text = text_of(**STOPPED)
    text["disk"]["stays"]["mtime_ns"] = "1700000000123456789"
    assert read(text) == plain("t1", **STOPPED)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_to("version", value=3), "its manifest has version 3; this hearth reads 2"),
        (without("checksum"), "missing required field `checksum`"),
        (set_to("checksum", value="0" * 64), "the checksum of its manifest is wrong"),
        (set_to("cpus", value=2), "the checksum of its manifest is wrong"),
        (set_to("stamp", "kernel", value="another"), "the checksum of its manifest is wrong"),
        (set_to("files", MEMORY_FULL, "block_hash", value="1" * 64), "the checksum of its manifest is wrong"),
        (set_to("drives", value=["root", "slot0"]), "the checksum of its manifest is wrong"),
        (set_to("created_at", value="2026-01-02T00:00:00Z"), "the checksum of its manifest is wrong"),
        (set_to("memory", "dropped", value=True), "was dropped and is among files"),
        (set_to("version", value=0), "its manifest has version 0"),
        (without("version"), "missing required field `version`"),
        *[(without(field), f"missing required field `{field}`") for field in ("id", "cpus", "stamp", "disk", "drives")],
        (without("stamp", "agent"), "missing required field `agent`"),
        (set_to("surprise", value=1), "unknown field `surprise`"),
        (set_to("stamp", "surprise", value=1), "unknown field `surprise`"),
        (set_to("cpus", value=1.5), r"\$\.cpus"),
        (set_to("cpus", value=0), r"\$\.cpus"),
        (set_to("memory_mib", value=-1), r"\$\.memory_mib"),
        (set_to("memory_mib", value="many"), r"\$\.memory_mib"),
        (set_to("id", value="../etc"), r"\$\.id"),
        (set_to("memory", "file", value="../../etc/shadow"), r"\$\.memory\.file"),
        (set_to("memory", "file", value="/etc/shadow"), r"\$\.memory\.file"),
        (set_to("disk", "file", value=".."), r"\$\.disk\.file"),
        (set_to("memory", "kind", value="half"), r"\$\.memory\.kind"),
        (set_to("disk", "layers", 0, "checksum", value="abc"), r"\$\.disk\.layers"),
        (set_to("files", MEMORY_FULL, "block_hash", value="G" * 64), r"\$\.files"),
        (set_to("files", MEMORY_FULL, "size_bytes", value=-1), r"\$\.files"),
        (set_to("files", "../x", value={"size_bytes": 0, "block_hash": "0" * 64}), r"\$\.files"),
        (set_to("created_at", value="yesterday"), r"\$\.created_at"),
        (set_to("created_at", value="2026-01-01T00:00:00"), "created_at has no time zone"),
        (set_to("memory", "file", value="other"), "memory.file 'other' is not among files"),
        (set_to("memory", "kind", value="diff"), "a diff needs memory.base"),
        (set_to("memory", "base", value={"id": "t0", "block_hash": "0" * 64}), "full memory has no memory.base"),
        (set_to("memory_mib", value=2), "the size of 'memory' is not memory_mib"),
        (set_to("disk", "file", value=None), "disk needs one of file and stays"),
        (set_to("disk", "stays", value={"size_bytes": 1, "mtime_ns": 1}), "disk needs one of file and stays"),
        (set_to("disk", "file", value="other"), "disk.file 'other' is not among files"),
        (set_to("drives", value=["root", "root"]), "drives are named twice"),
        (
            set_to("disk", "layers", 0, value={**{"kind": "snapshot", "id": "t1", "file": "d"}, "checksum": "0" * 64}),
            "a disk layer is in the snapshot itself",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_the_name_of_the_field(change: Callable[[Text], None], words: str) -> None:
    text = text_of()
    change(text)
    with pytest.raises(SnapshotRefused, match=words) as caught:
        read(text)
    assert caught.value.details.startswith("t1: ")
    assert "--force" in caught.value.resolution


def test_diff_relative_to_itself_is_refused() -> None:
    itself = Memory(kind=MemoryKind.DIFF, file=MEMORY_DIFF, base=MemoryBase(id="t1", block_hash=IMAGE_SHA256))
    with pytest.raises(SnapshotRefused, match=r"memory\.base is the snapshot itself"):
        encode(plain("t1", **(STOPPED | {"memory": itself})))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"7", b"[" * 100_000, b"\0" * 4096])
def test_text_that_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(SnapshotRefused, match="its manifest cannot be read"):
        decode(text, name="t1")


@given(st.data())
def test_manifest_cut_anywhere_is_refused(data: st.DataObject) -> None:
    text = encode(plain("t1")).rstrip()
    with pytest.raises(SnapshotRefused):
        decode(text[: data.draw(st.integers(0, len(text) - 1))], name="t1")


@given(st.data())
def test_flipped_bit_is_refused_unless_it_changes_nothing(data: st.DataObject) -> None:
    text = bytearray(encode(plain("t1")))
    text[data.draw(st.integers(0, len(text) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        assert decode(bytes(text), name="t1") == plain("t1")
    except SnapshotRefused as error:
        assert error.details


def test_time_without_a_zone_is_not_written() -> None:
    with pytest.raises(SnapshotRefused, match="no time zone"):
        encode(plain("t1", created_at=datetime(2026, 1, 1, tzinfo=UTC).replace(tzinfo=None)))


def test_same_stamps_do_not_differ() -> None:
    assert differences(STAMP, STAMP) == []


@pytest.mark.parametrize("field", Stamp.__struct_fields__)
def test_every_field_of_a_stamp_is_told_in_words(field: str) -> None:
    other = msgspec.structs.replace(STAMP, **{field: "another"})
    (words,) = differences(STAMP, other)
    assert words.startswith(f"{STAMP_WORDS[field]}: ")
    assert words.endswith(" when it was taken, another now")


def test_hashes_are_cut_and_the_unknown_is_called_so() -> None:
    other = msgspec.structs.replace(STAMP, machine="f" * 64, cpu_model="")
    shape, model = differences(STAMP, other)
    assert shape == f"machine shape: {STAMP.machine[:12]} when it was taken, ffffffffffff now"
    assert model == "CPU model: Nehalem when it was taken, unknown now"


def test_base_of_a_diff_on_a_diff_is_the_full_memory_below_both() -> None:
    template = plain("t1", files={MEMORY_FULL: FileRecord(size_bytes=MIB, block_hash="1" * 64), "disk.qcow2": EMPTY})
    assert template.full_memory == MemoryBase(id="t1", block_hash="1" * 64)
    assert plain("s1", **STOPPED).full_memory == MemoryBase(id="t0", block_hash=IMAGE_SHA256)


def test_layer_in_another_snapshot_is_fine() -> None:
    layer = Layer(kind=LayerKind.SNAPSHOT, id="t0", file="disk.qcow2", checksum=IMAGE_SHA256)
    manifest = plain("t1", disk=Disk(layers=(ROOTFS_LAYER, layer), file="disk.qcow2"))
    assert decode(encode(manifest), name="t1").disk.layers == (ROOTFS_LAYER, layer)


def test_a_manifest_of_the_version_without_a_checksum_is_read_still() -> None:
    text = text_of()
    del text["checksum"]
    text["version"] = 1
    assert read(text) == msgspec.structs.replace(plain("t1"), version=1)


def test_full_memory_that_others_need_cannot_be_dropped() -> None:
    memory = Memory(kind=MemoryKind.FULL, file=MEMORY_FULL, dropped=True)
    with pytest.raises(SnapshotRefused, match="it cannot be dropped"):
        encode(plain("t1", memory=memory, files={"disk.qcow2": EMPTY}))
