"""What lies below a machine's disk: the layers of its origin, in order, each what it is said to be."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.engine.snapshots import IMAGE_SHA256, ROOTFS_LAYER, make_stopped, make_template

from hearth.engine.base import BootFiles, MachinePlace, MachineSpec, SnapshotRefused
from hearth.engine.manifest import LayerKind
from hearth.engine.qemu.disk import Layers, layers_of
from hearth.engine.snapshot import DISK, load

IMAGES = Path("/images")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "snapshots"


def spec(origin: Path | None, *, sha256: str = IMAGE_SHA256) -> MachineSpec:
    boot = BootFiles(
        kernel=IMAGES / "kernel" / "vmlinuz",
        initramfs=IMAGES / "agent" / "initramfs",
        rootfs=IMAGES / ROOTFS_LAYER.id / ROOTFS_LAYER.file,
        rootfs_sha256=sha256,
    )
    place = MachinePlace(id="sb-1", directory=Path("/machines/sb-1"))
    return MachineSpec(place=place, cpus=1, memory_mib=1, boot=boot, origin=origin)


def test_a_machine_without_an_origin_lies_over_its_image_alone() -> None:
    assert layers_of(spec(None)) == (ROOTFS_LAYER,)
    assert Layers().paths(spec(None)) == ()


def test_a_clone_lies_over_the_frozen_disk_of_its_template(root: Path) -> None:
    template = make_template(root, "t1")
    image, frozen = layers_of(spec(template))
    assert image == ROOTFS_LAYER
    assert (frozen.kind, frozen.id, frozen.file) == (LayerKind.SNAPSHOT, "t1", DISK)
    assert frozen.checksum == load(template).manifest.files[DISK].block_hash
    assert Layers().paths(spec(template)) == [template / DISK]


@pytest.mark.parametrize("damage", ["flipped", "shorter", "missing"])
def test_a_damaged_layer_is_refused(root: Path, damage: str) -> None:
    disk = make_template(root, "t1") / DISK
    content = disk.read_bytes()
    disk.unlink()
    if damage != "missing":
        disk.write_bytes(content[:-1] + (b"x" if damage == "flipped" else b""))
    with pytest.raises(SnapshotRefused) as caught:
        Layers().paths(spec(root / "t1"))
    assert DISK in caught.value.details


def test_a_layer_is_read_once_until_it_changes(root: Path) -> None:
    layers, origin = Layers(), make_template(root, "t1")
    assert layers.paths(spec(origin)) == layers.paths(spec(origin))
    disk = origin / DISK
    disk.write_bytes(disk.read_bytes()[::-1])
    with pytest.raises(SnapshotRefused, match="checksum"):
        layers.paths(spec(origin))


def test_an_origin_over_another_image_is_refused_with_both(root: Path) -> None:
    origin = make_template(root, "t1")
    with pytest.raises(SnapshotRefused, match=f"{IMAGE_SHA256[:12]}.*not over.*000000000000"):
        Layers().paths(spec(origin, sha256="0" * 64))


def test_an_origin_whose_disk_stayed_with_its_machine_has_none_for_others(root: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.touch()
    base = load(make_template(root, "t1")).manifest.full_memory
    stopped = make_stopped(root, "s1", base, disk)
    with pytest.raises(SnapshotRefused, match="stayed with its machine"):
        layers_of(spec(stopped))
