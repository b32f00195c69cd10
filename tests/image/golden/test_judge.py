"""Hostile images: each refused with words, and nothing of this host read."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oslo_utils.imageutils import format_inspector
from tests.image.golden import qcow
from tests.image.golden.web import Web

from hearth.errors import InvalidInput
from hearth.host.clock import SystemClock
from hearth.image.golden.base import ImageRefused
from hearth.image.golden.cache import ImageCache
from hearth.image.golden.choosing import open_source
from hearth.image.golden.judge import ImageJudge, Verdict
from hearth.image.golden.qcow2 import NotSafe, read_header
from hearth.image.golden.settings import CacheSettings, GoldenSettings

MIB = 1 << 20
JUDGE = ImageJudge(virtual_max_bytes=64 << 30)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return qcow.make(tmp_path_factory.mktemp("good"))


async def judge(directory: Path, image: bytes, image_type: str) -> Verdict:
    path = directory / "image"
    path.write_bytes(image)
    return await JUDGE(path, image_type)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-c",),
        ("-c", "-o", "compression_type=zstd"),
        ("-o", "compat=0.10"),
        ("-o", "cluster_size=512"),
        ("-o", "cluster_size=2M"),
        ("-o", "extended_l2=on,cluster_size=128k"),
        ("-o", "refcount_bits=1"),
    ],
)
async def test_what_qemu_img_makes_is_good(tmp_path: Path, options: tuple[str, ...]) -> None:
    verdict = await judge(tmp_path, qcow.make(tmp_path, *options), "qcow2")
    assert verdict == Verdict(format="qcow2", virtual_size_bytes=16 * MIB, data_bytes=verdict.data_bytes)


async def test_a_raw_disk_is_as_large_as_its_file(tmp_path: Path) -> None:
    for image in (bytes(MIB), os.urandom(4096)[:511] + b"\x55" + bytes(MIB)):
        assert await judge(tmp_path, image, "raw") == Verdict(
            format="raw", virtual_size_bytes=len(image), data_bytes=len(image)
        )


BAD_FIELDS: list[tuple[dict[str, int], str]] = [
    ({"backing_offset": 0x400, "backing_bytes": 11}, "backing file"),
    ({"backing_offset": 1 << 40}, "backing file"),
    ({"incompatible": 1}, "not closed properly"),
    ({"incompatible": 2}, "corrupt"),
    ({"incompatible": 4}, "external data file"),
    ({"incompatible": 1 << 5}, "not known"),
    ({"incompatible": 8}, "compression"),
    ({"compression": 7}, "compression"),
    ({"encryption": 1}, "encrypted"),
    ({"encryption": 2}, "encrypted"),
    ({"version": 4}, "version"),
    ({"cluster_bits": 8}, "clusters"),
    ({"cluster_bits": 63}, "clusters"),
    ({"virtual_size": 1 << 63}, "the disk in it"),
    ({"virtual_size": 0}, "the disk in it"),
    ({"virtual_size": 1 << 50}, "too short"),
    ({"virtual_size": 1 << 50, "l1_count": 1 << 30}, "cut off"),
    ({"l1_offset": 3}, "cut off"),
    ({"l1_offset": 1 << 40}, "cut off"),
    ({"refcounts_offset": 0}, "cut off"),
    ({"refcounts_clusters": 1 << 20}, "cut off"),
    ({"refcount_order": 9}, "reference counts"),
    ({"header_bytes": 8}, "header has"),
    ({"header_bytes": 1 << 20}, "header has"),
    ({"snapshots": 1 << 30}, "snapshots"),
    ({"magic": 0}, "not a qcow2"),
]


@pytest.mark.parametrize(("fields", "words"), BAD_FIELDS)
async def test_bad_headers_are_refused_with_words(
    tmp_path: Path, good: bytes, fields: dict[str, int], words: str
) -> None:
    with pytest.raises(ImageRefused, match=words) as caught:
        await judge(tmp_path, qcow.changed(good, **fields), "qcow2")
    assert caught.value.field == "image_type"


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        (0xE2792ACA, b"raw", "backing file"),
        (0x44415441, b"/etc/passwd", "external data file"),
        (0x0537BE77, bytes(16), "encrypted"),
        (0x12345678, bytes(70_000)[:100], ""),
    ],
)
async def test_extensions_of_headers_that_lead_outside_are_refused(
    tmp_path: Path, good: bytes, kind: int, data: bytes, words: str
) -> None:
    image = qcow.with_extension(good, kind, data)
    if not words:  # one that is not known changes nothing, says the format
        assert (await judge(tmp_path, image, "qcow2")).virtual_size_bytes == 16 * MIB
        return
    with pytest.raises(ImageRefused, match=words):
        await judge(tmp_path, image, "qcow2")


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"QFI\xfb\0\0\0\3", "qcow2"),
        (b"KDMV", "VMDK"),
        (b"vhdxfile", "VHDX"),
        (b"conectix", "VHD"),
        (b"LUKS\xba\xbe", "LUKS"),
        (bytes(0x40) + b"\x7f\x10\xda\xbe", "VDI"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"<!DOCTYPE html>", "web page"),
    ],
)
async def test_what_is_something_else_is_no_raw_disk(tmp_path: Path, start: bytes, words: str) -> None:
    with pytest.raises(ImageRefused, match=words):
        await judge(tmp_path, start + bytes(MIB), "raw")
    if words in ("VHD", "qcow2"):
        return
    with pytest.raises(ImageRefused, match="not a qcow2"):
        await judge(tmp_path, start + bytes(MIB), "qcow2")


async def test_a_fixed_vhd_is_known_by_its_end(tmp_path: Path) -> None:
    with pytest.raises(ImageRefused, match="VHD"):
        await judge(tmp_path, bytes(MIB) + b"conectix" + bytes(504), "raw")


async def test_an_unknown_type_is_an_error_of_its_field(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="qcow2 or raw"):
        await judge(tmp_path, bytes(MIB), "vmdk")


def create(*words: str) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words], check=True)


async def test_real_backing_and_data_files_are_refused_before_qemu_sees_them(tmp_path: Path) -> None:
    secret, image = tmp_path / "secret", tmp_path / "image"
    secret.write_bytes(b"secret" * 100_000)
    create("-b", str(secret), "-F", "raw", str(image))
    with pytest.raises(ImageRefused, match="backing file"):
        await JUDGE(image, "qcow2")
    image.unlink()
    create("-o", f"data_file={tmp_path}/data,data_file_raw=on", str(image), "8M")
    with pytest.raises(ImageRefused, match="external data file"):
        await JUDGE(image, "qcow2")


async def test_a_truncated_image_is_refused(tmp_path: Path, good: bytes) -> None:
    for size in (0, 3, 71, 103, 4096, 65_536, len(good) // 2, len(good) - 65_536):
        with pytest.raises(ImageRefused):
            await judge(tmp_path, good[:size], "qcow2")


async def test_a_disk_of_absurd_size_is_refused_however_small_its_image(tmp_path: Path) -> None:
    path = tmp_path / "image"
    create(str(path), "1P")
    with pytest.raises(ImageRefused, match="are possible"):
        await JUDGE(path, "qcow2")


async def test_damaged_tables_are_found_by_qemu_img_in_its_enclosure(tmp_path: Path, good: bytes) -> None:
    l1_offset = int.from_bytes(good[40:48], "big")
    l2_offset = int.from_bytes(good[l1_offset : l1_offset + 8], "big") & ~(1 << 63)
    # Every cluster of the disk stands for the same bytes: small to fetch, large to unpack.
    bomb = good[:l2_offset] + good[l2_offset : l2_offset + 8] * 8192 + good[l2_offset + 65_536 :]
    with pytest.raises(ImageRefused, match="damaged"):
        await judge(tmp_path, bomb, "qcow2")


@settings(max_examples=300)
@given(position=st.integers(0, 255), value=st.integers(0, 255), length=st.integers(1, 8))
@example(position=72 + 7, value=4, length=1)
def test_no_change_of_a_header_gets_past_us_that_a_second_opinion_calls_unsafe(
    good: bytes, position: int, value: int, length: int
) -> None:
    image = good[:position] + bytes([value]) * length + good[position + length :]
    try:
        header = read_header(image, len(image))
    except NotSafe as error:
        assert str(error)
        return
    inspector = format_inspector.QcowInspector()
    inspector.eat_chunk(image)
    assert inspector.format_match
    inspector.safety_check()
    assert inspector.virtual_size == header.virtual_size_bytes


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader_of_headers(data: bytes) -> None:
    for image in (data, b"QFI\xfb\0\0\0\3" + data, b"QFI\xfb\0\0\0\2" + data):
        try:
            read_header(image, len(image))
        except NotSafe as error:
            assert str(error)


@settings(max_examples=20)
@given(flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=40))
def test_no_damage_anywhere_does_more_than_get_an_image_refused(
    good: bytes, tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[float, int]]
) -> None:
    """Through all of the judge: half of the flips hit header and tables, which are the file's beginning."""
    damaged = bytearray(good)
    for number, (place, mask) in enumerate(flips):
        damaged[int(place * (len(good) if number % 2 else 1024))] ^= mask
    try:
        verdict = asyncio.run(judge(tmp_path_factory.getbasetemp(), bytes(damaged), "qcow2"))
    except ImageRefused as error:
        assert error.details
        assert error.field == "image_type"
    else:
        assert 0 < verdict.virtual_size_bytes <= 64 << 30
        assert 0 <= verdict.data_bytes <= verdict.virtual_size_bytes


@pytest.mark.parametrize("image_type", ["raw", "qcow2"])
async def test_what_is_refused_is_not_kept(
    tmp_path: Path, web: Web, with_web: GoldenSettings, good: bytes, image_type: str
) -> None:
    bad = good if image_type == "raw" else qcow.changed(good, incompatible=4)
    web.objects["/x"] = bad
    web.objects["/x.sha256"] = f"{hashlib.sha256(bad).hexdigest()}  x\n".encode()
    cache = ImageCache(tmp_path / "cache", CacheSettings(), JUDGE, SystemClock())
    cache.prepare()
    source = open_source(with_web, web.url("/x"))
    with pytest.raises(ImageRefused):
        await cache.obtain(source, image_type, lambda _: None)
    await source.close()
    assert await cache.list() == []
    assert [path.name for path in (tmp_path / "cache/parts").iterdir()] == []


async def test_an_image_asked_for_as_another_type_is_refused_on_a_hit_too(
    tmp_path: Path, web: Web, with_web: GoldenSettings, good: bytes
) -> None:
    web.objects["/x"] = good
    cache = ImageCache(tmp_path / "cache", CacheSettings(), JUDGE, SystemClock())
    cache.prepare()
    source = open_source(with_web, web.url("/x"))
    (await cache.obtain(source, "qcow2", lambda _: None)).release()
    with pytest.raises(ImageRefused, match="another format"):
        await cache.obtain(source, "raw", lambda _: None)
    (await cache.obtain(source, "qcow2", lambda _: None)).release()
    await source.close()
