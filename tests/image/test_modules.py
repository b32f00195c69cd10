"""Which modules load, and in which order."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
from tests.image.elves import make_module

from hearth.errors import HostUnfit
from hearth.image import modules

TREE = {
    "virtio_ring": [],
    "virtio": ["virtio_ring"],
    "virtio_mmio": ["virtio", "virtio_ring"],
    "failover": [],
    "net_failover": ["failover"],
    "virtio_net": ["virtio_ring", "virtio", "net_failover"],
    "loop_a": ["loop_b"],
    "loop_b": ["loop_a"],
}


@pytest.mark.parametrize(
    ("wanted", "order"),
    [
        ([], []),
        (["virtio_ring"], ["virtio_ring"]),
        (["virtio"], ["virtio_ring", "virtio"]),
        (["virtio_mmio", "virtio"], ["virtio_ring", "virtio", "virtio_mmio"]),
        (["virtio_net"], ["virtio_ring", "virtio", "failover", "net_failover", "virtio_net"]),
        (["ext4", "virtio"], ["virtio_ring", "virtio"]),
        (["loop_a"], ["loop_b", "loop_a"]),
    ],
)
def test_each_module_loads_once_and_after_what_it_needs(wanted: list[str], order: list[str]) -> None:
    assert modules.load_order(wanted, TREE.__getitem__, available=TREE, builtin=["ext4"]) == order


def test_module_that_is_nowhere_is_named_with_who_wants_it() -> None:
    tree = {"ext4": ["jbd2"]}
    with pytest.raises(HostUnfit, match=r"jbd2 \(needed by ext4\)"):
        modules.load_order(["ext4"], tree.__getitem__, available=tree, builtin=[])


@pytest.mark.parametrize(
    ("records", "needed"),
    [
        (["license=GPL", "depends="], []),
        (["depends=virtio,virtio-ring"], ["virtio", "virtio_ring"]),
        (["softdep=pre: crc32c mbcache post: later", "depends=jbd2"], ["crc32c", "mbcache", "jbd2"]),
        (["softdep=post: later"], []),
    ],
)
def test_module_tells_what_it_depends_on(records: list[str], needed: list[str]) -> None:
    assert modules.dependencies(make_module(*records)) == needed


def test_listing_of_built_in_modules_is_read_by_name() -> None:
    assert modules.built_in("kernel/fs/ext4/ext4.ko\nkernel/lib/crc-t10dif.ko\n") == {"ext4", "crc_t10dif"}


def test_modules_are_found_plain_and_compressed(tmp_path: Path) -> None:
    data = make_module("depends=")
    (tmp_path / "kernel").mkdir()
    (tmp_path / "kernel/a-b.ko").write_bytes(data)
    (tmp_path / "kernel/c.ko.xz").write_bytes(lzma.compress(data))
    (tmp_path / "kernel/d.ko.gz").write_bytes(gzip.compress(data))
    (tmp_path / "modules.order").write_text("")
    found = modules.find_modules(tmp_path)
    assert set(found) == {"a_b", "c", "d"}
    assert [modules.DECOMPRESSORS[path.suffix](path.read_bytes()) for path in found.values()] == [data] * 3
