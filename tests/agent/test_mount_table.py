"""Which mounts are disks to freeze, from lines as /proc/self/mountinfo has them."""

from __future__ import annotations

import os
from pathlib import Path

from hearth.agent.mount_table import Mount, read_mounts, writable_disks

LINES = r"""
21 1 254:0 / / rw,noatime - ext4 /dev/vda rw
22 21 0:5 / /dev rw,nosuid - devtmpfs devtmpfs rw,size=1k
23 21 254:16 / /with\040blank rw shared:1 - ext4 /dev/vdb rw
24 21 254:0 /home /again ro,noatime - ext4 /dev/vda rw
25 21 254:32 / /read-only rw - ext4 /dev/vdc ro,norecovery
26 21 0:30 / /tree rw master:2 - btrfs /dev/vdd rw,ssd
27 21 0:31 / /layers rw - overlay overlay rw,lowerdir=/a
28 21 7:0 /part /loop rw - ext4 /dev/loop0 rw
29 28 7:0 / /loop/whole rw - ext4 /dev/loop0 rw
30 21 0:32 / /net rw - nfs none:/dev/x rw
"""


def mounts(directory: Path, text: str) -> list[Mount]:
    (directory / "self").mkdir()
    (directory / "self" / "mountinfo").write_bytes(text.strip().encode("latin-1") + b"\n")
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return read_mounts(descriptor)
    finally:
        os.close(descriptor)


def test_writable_disks_come_newest_first_and_each_once_by_its_top(tmp_path: Path) -> None:
    groups = writable_disks(mounts(tmp_path, LINES))
    assert [[mount.point for mount in group] for group in groups] == [
        ["/loop/whole", "/loop"],
        ["/tree"],
        ["/with blank"],
        ["/", "/again"],
    ]
    assert [group[0].has_plain_number for group in groups] == [True, False, True, True]
    assert groups[3][0].device == os.makedev(254, 0)


def test_a_path_of_any_bytes_reads_back(tmp_path: Path) -> None:
    (mount,) = mounts(tmp_path, "23 21 254:16 / /a\\134b\\011\xff rw - ext4 /dev/vdb rw")
    assert os.fsencode(mount.point) == b"/a\\b\t\xff"


def test_this_systems_own_table_reads() -> None:
    descriptor = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert "/proc" in [mount.point for mount in read_mounts(descriptor)]
    finally:
        os.close(descriptor)
