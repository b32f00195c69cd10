"""Chains of layers become one file, read back by QEMU's own tools; headers that name other files are refused."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from hearth.engine.base import SnapshotRefused
from hearth.engine.qemu.merging import Chain, export, merge
from hearth.engine.qemu.overlay import create_overlay
from hearth.errors import InvalidInput

KIB = 1024
DISK_BYTES = 8 * KIB * KIB

pytestmark = pytest.mark.skipif(shutil.which("qemu-io") is None, reason="needs qemu-img and qemu-io (qemu-utils)")


def described(chain: Chain) -> str:
    """Describe a disk to QEMU's own tools, in their ``json:`` syntax."""
    disk: dict[str, object] = {"driver": "raw", "read-only": True, "file": file_at(chain.rootfs)}
    for layer in chain.layers:
        disk = {"driver": "qcow2", "file": file_at(layer), "backing": disk}
    return "json:" + json.dumps(disk)


def file_at(path: Path) -> dict[str, str]:
    return {"driver": "file", "filename": str(path)}


def write(chain: Chain, *commands: str) -> None:
    """Change the topmost layer as a guest does."""
    words = [word for command in commands for word in ("-c", command)]
    subprocess.run(["qemu-io", *words, described(chain)], check=True, capture_output=True)


def content(chain: Chain, directory: Path) -> str:
    target = directory / "read.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", described(chain), str(target)], check=True)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    target.unlink()
    return digest


def require_sound(path: Path) -> None:
    subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", str(path)], check=True)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    """Three layers over random bytes: each adds, overwrites what lies below, and zeros some of it."""
    directory = tmp_path / "with,comma"
    directory.mkdir()
    rootfs = directory / "rootfs.ext4"
    rootfs.write_bytes(random.Random(1).randbytes(2 * KIB * KIB) + bytes(DISK_BYTES - 2 * KIB * KIB))
    layers: list[Path] = []
    for number in range(3):
        path = directory / f"{number}.qcow2"
        create_overlay(path, DISK_BYTES)
        layers.append(path)
        at = number * 192
        write(
            Chain(rootfs=rootfs, layers=layers),
            f"write -P {number + 1} {at}k 128k",
            f"write -P {number + 11} {4096 + at}k 4k",
            f"write -z {1024 + number * 64}k 64k",
            "write -P 99 6M 64k" if number == 0 else "write -z 6M 64k",
        )
    return Chain(rootfs=rootfs, layers=layers)


async def test_merged_layers_hold_what_they_did_and_lie_over_the_root_file_system(chain: Chain, tmp_path: Path) -> None:
    before = content(chain, tmp_path)
    others = [(path, path.read_bytes()) for path in (chain.rootfs, *chain.layers[:-1])]

    await merge(chain)

    merged = Chain(rootfs=chain.rootfs, layers=chain.layers[-1:])
    assert content(merged, tmp_path) == before
    assert all(path.read_bytes() == data for path, data in others)
    require_sound(chain.layers[-1])
    assert chain.layers[-1].stat().st_blocks * 512 < 3 * KIB * KIB, "it holds what the root file system has, too"
    merged.check()


async def test_an_exported_disk_is_the_disk_with_its_holes(chain: Chain, tmp_path: Path) -> None:
    target = tmp_path / "out.raw"
    await export(chain, target)

    assert hashlib.sha256(target.read_bytes()).hexdigest() == content(chain, tmp_path)
    assert target.stat().st_size == DISK_BYTES
    assert target.stat().st_blocks * 512 < DISK_BYTES // 2


async def test_without_layers_the_root_file_system_alone_is_exported(chain: Chain, tmp_path: Path) -> None:
    target = tmp_path / "out.raw"
    await export(Chain(rootfs=chain.rootfs, layers=[]), target)
    assert target.read_bytes() == chain.rootfs.read_bytes()


def patched(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


# Offsets of docs/interop/qcow2.txt.
FORGERIES = {
    "a backing file": (8, struct.pack(">QI", 4096, 11)),
    "an external data file": (72, struct.pack(">Q", 0b100)),
    "encryption": (32, struct.pack(">I", 1)),
    "an unknown feature": (72, struct.pack(">Q", 1 << 40)),
    "an old version": (4, struct.pack(">I", 2)),
}


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("position", [0, 2])
async def test_a_layer_that_says_what_none_of_ours_does_is_refused_and_nothing_is_written(
    chain: Chain, tmp_path: Path, forgery: str, position: int
) -> None:
    patched(chain.layers[position], *FORGERIES[forgery])
    top = chain.layers[-1].read_bytes()

    with pytest.raises(SnapshotRefused, match="cannot be started from"):
        await export(chain, tmp_path / "out.raw")
    with pytest.raises(SnapshotRefused):
        await merge(chain)
    assert not (tmp_path / "out.raw").exists()
    assert chain.layers[-1].read_bytes() == top


async def test_a_layer_that_is_no_qcow2_file_is_refused(chain: Chain, tmp_path: Path) -> None:
    chain.layers[1].write_bytes(b"/etc/shadow")
    with pytest.raises(InvalidInput):
        await export(chain, tmp_path / "out.raw")


async def test_a_layer_that_claims_to_be_larger_than_the_disk_is_refused(chain: Chain, tmp_path: Path) -> None:
    with chain.layers[1].open("r+b") as file:
        file.seek(24)  # the virtual size (docs/interop/qcow2.txt)
        file.write(struct.pack(">Q", 1 << 40))

    with pytest.raises(SnapshotRefused):
        await export(chain, tmp_path / "disk.raw")
    with pytest.raises(SnapshotRefused):
        await merge(chain)

    assert not (tmp_path / "disk.raw").exists()


def grown(chain: Chain, *sizes: int) -> Chain:
    """Give the same with layers of these sizes on top, of a machine whose disk is as large as the last."""
    layers = [*chain.layers]
    for number, size in enumerate(sizes):
        layers.append(chain.rootfs.parent / f"grown{number}.qcow2")
        create_overlay(layers[-1], size)
    return Chain(rootfs=chain.rootfs, layers=layers, size_bytes=max(sizes))


async def test_layers_that_have_grown_are_merged_and_exported_as_large_as_they_are(
    chain: Chain, tmp_path: Path
) -> None:
    larger = grown(chain, DISK_BYTES * 2, DISK_BYTES * 3)
    write(larger, f"write -P 7 {DISK_BYTES * 3 - 64 * KIB} 64k")
    before = content(larger, tmp_path)
    await export(larger, tmp_path / "all.raw")
    assert (tmp_path / "all.raw").stat().st_size == DISK_BYTES * 3
    assert hashlib.sha256((tmp_path / "all.raw").read_bytes()).hexdigest() == before
    await merge(larger)
    require_sound(larger.layers[-1])
    alone = Chain(rootfs=larger.rootfs, layers=larger.layers[-1:], size_bytes=larger.size_bytes)
    assert content(alone, tmp_path) == before


@pytest.mark.parametrize(
    ("sizes", "most"), [((DISK_BYTES // 2,), DISK_BYTES), ((DISK_BYTES * 2, DISK_BYTES), DISK_BYTES * 2)]
)
async def test_a_layer_that_shrinks_is_refused(chain: Chain, tmp_path: Path, sizes: tuple[int, ...], most: int) -> None:
    shrunk = grown(chain, *sizes)
    with pytest.raises(SnapshotRefused):
        await export(Chain(rootfs=shrunk.rootfs, layers=shrunk.layers, size_bytes=most), tmp_path / "all.raw")
    assert not (tmp_path / "all.raw").exists()


async def test_a_layer_that_claims_more_than_its_machine_has_is_refused(chain: Chain, tmp_path: Path) -> None:
    larger = grown(chain, DISK_BYTES * 2)
    with pytest.raises(SnapshotRefused):
        await merge(Chain(rootfs=larger.rootfs, layers=larger.layers, size_bytes=DISK_BYTES * 2 - 512))
    with pytest.raises(SnapshotRefused):
        await export(Chain(rootfs=larger.rootfs, layers=larger.layers), tmp_path / "all.raw")
