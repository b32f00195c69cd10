"""Which snapshots others need, in tables: T templates, C checkpoints, S stopped machines, m machines."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.snapshots import EMPTY, ROOTFS_LAYER, plain

from hearth.engine.base import SnapshotRefused
from hearth.engine.layers import (
    Inventory,
    Users,
    broken,
    closure,
    deletable,
    dependents_first,
    direct_needs,
    needed_images,
    users_of,
)
from hearth.engine.manifest import Disk, FileRecord, Layer, LayerKind, Manifest, Memory, MemoryBase, MemoryKind
from hearth.engine.snapshot import DISK, MEMORY_DIFF

OTHER = hashlib.sha256(b"other").hexdigest()


def layer(snapshot_id: str, checksum: str = EMPTY.block_hash) -> Layer:
    return Layer(kind=LayerKind.SNAPSHOT, id=snapshot_id, file=DISK, checksum=checksum)


def snapshot(snapshot_id: str, *, base: str | None = None, disks: tuple[str, ...] = ()) -> Manifest:
    """Give a snapshot with a diff over ``base`` and a disk over those of ``disks``."""
    over = Disk(layers=(ROOTFS_LAYER, *(layer(below) for below in disks)), file=DISK)
    if base is None:
        return plain(snapshot_id, disk=over)
    memory = Memory(kind=MemoryKind.DIFF, file=MEMORY_DIFF, base=MemoryBase(id=base, block_hash=EMPTY.block_hash))
    return plain(snapshot_id, disk=over, memory=memory, files={MEMORY_DIFF: EMPTY, DISK: EMPTY})


def forest(*manifests: Manifest) -> dict[str, Manifest]:
    return {manifest.id: manifest for manifest in manifests}


# T1 ◀─ C1 ◀─ C2: a checkpoint of a clone of a template, and one of a fork of the first checkpoint.
CHAIN = forest(
    snapshot("T1"),
    snapshot("C1", base="T1", disks=("T1",)),
    snapshot("C2", base="T1", disks=("T1", "C1")),
    snapshot("T2"),
)


def test_memory_base_and_disk_layers_are_needed() -> None:
    assert direct_needs(CHAIN["T1"]) == set()
    assert direct_needs(CHAIN["C2"]) == {"T1", "C1"}
    assert direct_needs(snapshot("S1", base="T2", disks=("T1",))) == {"T1", "T2"}
    assert needed_images(CHAIN.values()) == {ROOTFS_LAYER.id}


def test_closure_goes_through_others_and_names_what_is_missing() -> None:
    manifests = forest(snapshot("C2", disks=("C1",)), snapshot("C1", disks=("gone",)))
    assert closure(["C2"], manifests) == {"C2", "C1", "gone"}
    assert closure([], manifests) == set()


@pytest.mark.parametrize(
    ("unwanted", "machines", "expected"),
    [
        ([], {}, []),
        (["T2"], {}, ["T2"]),
        (["T1"], {}, []),
        (["C1"], {}, []),
        (["C2"], {}, ["C2"]),
        (["C1", "C2"], {}, ["C2", "C1"]),
        (["T1", "C1", "C2"], {}, ["C2", "C1", "T1"]),
        (["T1", "C2"], {}, ["C2"]),
        (["T1", "C1", "C2", "T2"], {"m1": ["C1"]}, ["C2", "T2"]),
        (["T1", "C1", "C2", "T2"], {"m1": ["C2"]}, ["T2"]),
        (["T2"], {"m1": ["T2"]}, []),
        (["T2"], {"m1": []}, ["T2"]),
        (["T2"], {"m1": ["gone"]}, ["T2"]),
        (["unheard of"], {}, []),
    ],
)
def test_only_what_nobody_needs_is_deleted(
    unwanted: list[str], machines: Mapping[str, list[str]], expected: list[str]
) -> None:
    assert deletable(unwanted, Inventory(manifests=CHAIN, machines=machines)) == expected


@pytest.mark.parametrize(
    ("unwanted", "unreadable", "expected"),
    [
        (["T2"], ["X"], []),
        (["X"], ["X"], ["X"]),
        (["X", "T2"], ["X"], ["X", "T2"]),
        (["X", "T2"], ["X", "Y"], []),
        (["X", "Y"], ["X", "Y"], ["X", "Y"]),
    ],
)
def test_nobody_knows_what_an_unreadable_snapshot_needs(
    unwanted: list[str], unreadable: list[str], expected: list[str]
) -> None:
    assert deletable(unwanted, Inventory(manifests=CHAIN, unreadable=unreadable)) == expected


def test_unreadable_snapshot_that_another_names_stays() -> None:
    manifests = forest(snapshot("C1", base="X", disks=("X",)))
    assert deletable(["X"], Inventory(manifests=manifests, unreadable=["X"])) == []
    assert deletable(["X"], Inventory(manifests={}, unreadable=["X"], machines={"m1": ["X"]})) == []


def test_unreadable_snapshot_goes_between_its_users_and_what_it_may_need() -> None:
    manifests = forest(snapshot("T1"), snapshot("C1", disks=("X",)), snapshot("C2", disks=("C1",)))
    everything = Inventory(manifests=manifests, unreadable=["X"])
    assert deletable(["T1", "X", "C1", "C2"], everything) == ["C2", "C1", "X", "T1"]


def test_users_are_told_by_kind() -> None:
    inventory = Inventory(manifests=CHAIN, machines={"m2": ["C2"], "m1": ["T2"]}, unreadable=["X"])
    assert users_of("T1", inventory) == Users(snapshots=("C1", "C2"), machines=("m2",), unknown=("X",))
    assert users_of("T2", inventory) == Users(machines=("m1",), unknown=("X",))
    alone = Inventory(manifests=CHAIN)
    assert users_of("C2", alone) == Users()
    assert not users_of("C2", alone)
    assert users_of("C1", alone)


@pytest.mark.parametrize(
    ("manifests", "words"),
    [
        (forest(snapshot("A", disks=("B",)), snapshot("B", disks=("A",))), "needs itself: (A → B → A|B → A → B)"),
        (
            forest(snapshot("A", base="B"), snapshot("B", disks=("C",)), snapshot("C", base="A"), snapshot("T")),
            "needs itself: (A → B → C → A|B → C → A → B|C → A → B → C)",
        ),
    ],
)
def test_circle_is_refused_by_name(manifests: dict[str, Manifest], words: str) -> None:
    with pytest.raises(SnapshotRefused, match=words):
        dependents_first(manifests)
    with pytest.raises(SnapshotRefused, match=words):
        deletable(["A"], Inventory(manifests=manifests))
    # Asking about one must end, too.
    assert users_of("A", Inventory(manifests=manifests)).snapshots
    assert closure(["A"], manifests) >= {"A", "B"}


@st.composite
def forests(draw: st.DrawFn) -> dict[str, Manifest]:
    ids = [f"s{number}" for number in range(draw(st.integers(1, 12)))]
    made = []
    for number, snapshot_id in enumerate(ids):
        below = st.sampled_from(ids[:number]) if number else st.nothing()
        disks = draw(st.lists(below, unique=True, max_size=3)) if number else []
        base = draw(st.none() | below) if number else None
        made.append(snapshot(snapshot_id, base=base, disks=tuple(disks)))
    return forest(*made)


@given(forests(), st.data())
def test_after_any_deletion_everything_wanted_is_complete(manifests: dict[str, Manifest], data: st.DataObject) -> None:
    some = st.sets(st.sampled_from(sorted(manifests)))
    unwanted, stands_on = data.draw(some), data.draw(some)
    gone = deletable(unwanted, Inventory(manifests=manifests, machines={"m": stands_on}))
    assert set(gone) <= unwanted - stands_on
    left = dict(manifests)
    for snapshot_id in gone:
        # At no moment does anything that is still there lie over what was deleted.
        del left[snapshot_id]
        assert all(direct_needs(manifest) <= left.keys() for manifest in left.values())
    assert closure(stands_on, left) <= left.keys()
    # Nothing is kept that could have gone: whoever was kept though unwanted has a wanted user.
    wanted = closure((manifests.keys() - unwanted) | stands_on, manifests)
    assert left.keys() == wanted


@given(forests())
def test_order_puts_everything_before_what_it_needs(manifests: dict[str, Manifest]) -> None:
    order = dependents_first(manifests)
    assert sorted(order) == sorted(manifests)
    places = {snapshot_id: place for place, snapshot_id in enumerate(order)}
    for snapshot_id, manifest in manifests.items():
        assert all(places[snapshot_id] < places[below] for below in direct_needs(manifest))


def test_whole_forest_is_not_broken() -> None:
    base_hash = CHAIN["T1"].full_memory
    assert base_hash == MemoryBase(id="T1", block_hash=EMPTY.block_hash)
    assert broken(CHAIN) == {}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"T1": None}, {"C1": ["relative to T1, which is missing", "over T1, which is missing"], "C2": ["T1"]}),
        ({"C1": None}, {"C2": ["its disk lies over C1, which is missing"]}),
        (
            {"T1": plain("T1", disk=Disk(layers=(ROOTFS_LAYER, layer("T2")), file=DISK)), "T2": None},
            {"T1": ["its disk lies over T2, which is missing"]},
        ),
        (
            {"T1": plain("T1", files={**CHAIN["T1"].files, DISK: FileRecord(size_bytes=1, block_hash=OTHER)})},
            {"C1": ["its disk lies over disk.qcow2 of T1, which is not what it was"], "C2": ["disk.qcow2 of T1"]},
        ),
        (
            {"T1": plain("T1", files={**CHAIN["T1"].files, "memory": FileRecord(size_bytes=1, block_hash=OTHER)})},
            {"C1": ["relative to T1, whose memory is not what it was"], "C2": ["whose memory is not what it was"]},
        ),
        (
            {"T1": snapshot("T1", base="T2")},
            {"C1": ["relative to T1, whose memory is not what it was"], "C2": ["whose memory is not what it was"]},
        ),
    ],
)
def test_what_stands_on_something_missing_or_changed_is_told(
    change: dict[str, Manifest | None], expected: dict[str, list[str]]
) -> None:
    merged: dict[str, Manifest | None] = {**CHAIN, **change}
    found = broken({snapshot_id: manifest for snapshot_id, manifest in merged.items() if manifest is not None})
    assert found.keys() == expected.keys()
    for snapshot_id, words in expected.items():
        assert all(word in found[snapshot_id] for word in words)
