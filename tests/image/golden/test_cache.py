"""The cache fetches each image once, goes on where it was cut off, shows whole images alone, and makes room."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import obstore
import pytest
from tests.image.golden.web import Web

from hearth.bench.s3_server import S3Server
from hearth.errors import Conflict, HostUnfit, NoSpace, NotFound
from hearth.host.clock import ManualClock, SystemClock
from hearth.image.golden.base import ImageRefused, SourceChanged, SourceUnreachable
from hearth.image.golden.cache import ImageCache, Progress
from hearth.image.golden.choosing import open_source
from hearth.image.golden.entries import Lease
from hearth.image.golden.judge import ImageJudge, Verdict
from hearth.image.golden.part import checksum, chunk_size
from hearth.image.golden.settings import CacheSettings, DownloadSettings, GoldenSettings, RetrySettings

MIB = 1 << 20
DATA = os.urandom(4 * MIB + 12345)
SHA256 = hashlib.sha256(DATA).hexdigest()
DOWNLOAD = DownloadSettings(retry=RetrySettings(attempts=3, backoff_ms=(1, 2)))
LONE = replace(DOWNLOAD, ranges_max=1)
"""For tests that count bytes: what comes for nothing when there are more ranges depends on how fast the machine is."""


def make_cache(root: Path, **settings: object) -> ImageCache:
    chosen = CacheSettings(**{"download": DOWNLOAD, **settings})  # type: ignore[arg-type]
    made = ImageCache(root / "cache", chosen, ImageJudge(virtual_max_bytes=1 << 40), SystemClock())
    made.prepare()
    return made


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return make_cache(tmp_path)


@pytest.fixture
def lone(tmp_path: Path) -> ImageCache:
    return make_cache(tmp_path, download=LONE)


def ignore(_: Progress) -> None:
    """Nobody looks."""


async def obtain(cache: ImageCache, settings: GoldenSettings, url: str, checksum: str | None = None) -> Lease:
    source = open_source(settings, url)
    try:
        return await cache.obtain(source, "raw", ignore, checksum=checksum)
    finally:
        await source.close()


def left(root: Path) -> list[str]:
    """What lies about beside images and what is known of them."""
    kinds = ("parts", "locks", "refused")
    return [path.name for kind in kinds for path in (root / "cache" / kind).iterdir() if path.name != "room.lock"]


async def test_an_image_from_object_storage_is_fetched_once_and_kept_by_its_contents(
    tmp_path: Path, s3: S3Server, bucket: str, with_s3: GoldenSettings, cache: ImageCache
) -> None:
    obstore.put(s3.store(bucket), "golden.img", DATA)
    obstore.put(s3.store(bucket), "golden.img.sha256", f"{SHA256}  golden.img\n".encode())
    seen: list[Progress] = []
    source = open_source(with_s3, f"s3://{bucket}/golden.img")
    with await cache.obtain(source, "raw", seen.append) as lease:
        assert (lease.key, lease.is_hit) == (SHA256, False)
        assert lease.path.read_bytes() == DATA
        assert lease.path.stat().st_mode & 0o777 == 0o444
        assert lease.facts.virtual_size_bytes == len(DATA)
    with await cache.obtain(source, "raw", ignore) as again:
        assert again.is_hit
    await source.close()
    stages = list(dict.fromkeys(progress.stage for progress in seen))
    assert stages == ["resolving", "downloading", "verifying"]
    assert seen[-1].bytes_processed == seen[-1].bytes_total == len(DATA)
    assert left(tmp_path) == []


async def test_many_who_ask_at_once_get_one_download(web: Web, with_web: GoldenSettings, lone: ImageCache) -> None:
    web.objects["/x"] = DATA
    leases = await asyncio.gather(*(obtain(lone, with_web, web.url("/x")) for _ in range(12)))
    assert {lease.key for lease in leases} == {SHA256}
    assert sum(not lease.is_hit for lease in leases) == 1
    assert web.sent_bytes < len(DATA) + 12 * 1024
    for lease in leases:
        lease.release()


ASKER = """
import asyncio, sys
from ipaddress import ip_network
from pathlib import Path
from hearth.host.clock import SystemClock
from hearth.image.golden.cache import ImageCache
from hearth.image.golden.choosing import open_source
from hearth.image.golden.judge import ImageJudge
from hearth.image.golden.settings import CacheSettings, DownloadSettings, GoldenSettings, SourcePolicy

async def main(root: str, url: str) -> None:
    host = url.split("/")[2]
    policy = SourcePolicy(http_hosts=(host,), private_networks=(ip_network("127.0.0.1/32"),))
    settings = CacheSettings(download=DownloadSettings(ranges_max=1))
    cache = ImageCache(Path(root), settings, ImageJudge(virtual_max_bytes=1 << 40), SystemClock())
    with await cache.obtain(open_source(GoldenSettings(policy=policy), url), "raw", lambda _: None) as lease:
        print("RESULT", lease.key, lease.is_hit)

asyncio.run(main(*sys.argv[1:]))
"""


def test_other_processes_share_the_one_download(tmp_path: Path, web: Web, cache: ImageCache) -> None:
    web.objects["/x"] = DATA
    words = [sys.executable, "-c", ASKER, str(tmp_path / "cache"), web.url("/x")]
    askers = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [asker.communicate(timeout=120)[0] for asker in askers]
    results = sorted(line for text in said for line in text.splitlines() if line.startswith("RESULT"))
    assert results == [f"RESULT {SHA256} False", f"RESULT {SHA256} True", f"RESULT {SHA256} True"]
    assert web.sent_bytes < len(DATA) + 4096


async def test_after_a_cut_at_90_per_cent_next_to_nothing_is_fetched_again(
    tmp_path: Path, web: Web, with_web: GoldenSettings, lone: ImageCache
) -> None:
    once = replace(LONE, retry=RetrySettings(attempts=1))
    web.objects["/x"] = DATA
    web.cut_after = len(DATA) * 9 // 10
    with pytest.raises(SourceUnreachable):
        await obtain(make_cache(tmp_path, download=once), with_web, web.url("/x"))
    assert any(name.endswith(".part") for name in left(tmp_path))
    web.cut_after, before = None, web.sent_bytes
    with await obtain(lone, with_web, web.url("/x")) as lease:
        assert lease.path.read_bytes() == DATA
    assert web.sent_bytes - before <= len(DATA) * 15 // 100
    assert left(tmp_path) == []


async def test_what_a_crash_damaged_in_a_part_is_fetched_again(
    tmp_path: Path, web: Web, with_web: GoldenSettings, lone: ImageCache
) -> None:
    web.objects["/x"], web.cut_after = DATA, len(DATA) // 2
    with pytest.raises(SourceUnreachable):
        await obtain(lone, with_web, web.url("/x"))
    part = next((tmp_path / "cache/parts").glob("*.part"))
    with part.open("r+b") as file:
        file.seek(MIB)
        file.write(b"damaged")
    with next((tmp_path / "cache/parts").glob("*.journal")).open("ab") as journal:
        journal.write(b"99999 00000000\n12 zzz\n7")
    web.cut_after, before = None, web.sent_bytes
    with await obtain(lone, with_web, web.url("/x")) as lease:
        assert lease.path.read_bytes() == DATA
    assert web.sent_bytes - before < len(DATA) * 3 // 4


@pytest.mark.parametrize("mark", ["crc", "all before", "nonsense"])
async def test_whichever_mark_a_chunk_has_a_damaged_one_is_fetched_again(
    tmp_path: Path, web: Web, with_web: GoldenSettings, lone: ImageCache, mark: str
) -> None:
    web.objects["/x"], web.cut_after = DATA, len(DATA) * 3 // 4
    with pytest.raises(SourceUnreachable):
        await obtain(lone, with_web, web.url("/x"))
    chunk = chunk_size(len(DATA))
    marks = {
        "crc": lambda index: checksum([memoryview(DATA)[index * chunk : (index + 1) * chunk]]),
        "all before": lambda index: hashlib.sha256(DATA[: (index + 1) * chunk]).hexdigest(),
        "nonsense": lambda index: f"{index:064x}",
    }
    journal = next((tmp_path / "cache/parts").glob("*.journal"))
    lines = journal.read_text().splitlines()
    known = sorted({int(line.split()[0]) for line in lines[1:] if line})
    assert len(known) > 10
    journal.write_text("\n".join([lines[0], *(f"{index} {marks[mark](index)}" for index in known)]) + "\n")
    with next((tmp_path / "cache/parts").glob("*.part")).open("r+b") as file:
        file.seek(known[5] * chunk + 7)
        file.write(b"damaged")
    web.cut_after, before = None, web.sent_bytes
    with await obtain(lone, with_web, web.url("/x")) as lease:
        assert lease.path.read_bytes() == DATA
    if mark != "nonsense":
        assert web.sent_bytes - before < len(DATA) * 3 // 4


async def test_failures_in_between_are_tried_again(web: Web, with_web: GoldenSettings, cache: ImageCache) -> None:
    web.objects["/x"], web.statuses["/x"] = DATA, [503, 500]
    with await obtain(cache, with_web, web.url("/x")) as lease:
        assert lease.key == SHA256


@pytest.mark.parametrize("ranges", [1, 8])
async def test_a_step_forward_however_small_makes_patience_new(
    tmp_path: Path, web: Web, with_web: GoldenSettings, ranges: int
) -> None:
    web.objects["/x"], web.cut_each = DATA, chunk_size(len(DATA)) * 5 // 4
    download = DownloadSettings(ranges_max=ranges, retry=RetrySettings(attempts=2, backoff_ms=(1,)))
    with await obtain(make_cache(tmp_path, download=download), with_web, web.url("/x")) as lease:
        assert lease.path.read_bytes() == DATA
    assert web.asked.count("/x") > len(DATA) // chunk_size(len(DATA))
    web.cut_each = chunk_size(len(DATA)) // 2
    web.objects["/y"] = bytes(reversed(DATA))
    with pytest.raises(SourceUnreachable):
        await obtain(make_cache(tmp_path, download=download), with_web, web.url("/y"))


@pytest.mark.parametrize(("status", "tries"), [(403, 1), (404, 1), (503, 3)])
async def test_only_what_is_worth_it_is_tried_again(
    tmp_path: Path, web: Web, with_web: GoldenSettings, cache: ImageCache, status: int, tries: int
) -> None:
    web.objects["/x"], web.statuses["/x"] = DATA, [status] * 9
    with pytest.raises(Exception, match=r"/x"):
        await obtain(cache, with_web, web.url("/x"))
    assert web.asked == ["/x"] * tries
    assert left(tmp_path) == []


async def test_a_server_without_ranges_or_names_for_versions_will_do(
    tmp_path: Path, web: Web, with_web: GoldenSettings, cache: ImageCache
) -> None:
    web.objects["/x"], web.has_ranges, web.has_etags = DATA, False, False
    with await obtain(cache, with_web, web.url("/x")) as lease:
        assert lease.path.read_bytes() == DATA
    with await obtain(cache, with_web, web.url("/x"), SHA256) as lease:
        assert lease.is_hit
    assert left(tmp_path) == []


async def test_an_object_that_changes_during_the_download_is_refused_and_nothing_of_it_kept(
    tmp_path: Path, web: Web, with_web: GoldenSettings, cache: ImageCache
) -> None:
    web.objects["/x"], web.change_after = DATA, len(DATA) // 3
    with pytest.raises(SourceChanged):
        await obtain(cache, with_web, web.url("/x"))
    assert (left(tmp_path), await cache.list()) == ([], [])


async def test_an_object_that_changes_when_others_have_had_their_share_is_refused_as_well(
    web: Web, with_web: GoldenSettings, cache: ImageCache
) -> None:
    """A second range is tried and taken back; the first one goes on to the end of what it had asked for."""
    web.objects["/x"], web.change_after, web.pause_s = DATA, len(DATA) * 3 // 4, 0.03
    with pytest.raises(SourceChanged):
        await obtain(cache, with_web, web.url("/x"))


async def test_a_wrong_checksum_is_refused_and_not_fetched_again_at_once(
    tmp_path: Path, web: Web, with_web: GoldenSettings, lone: ImageCache
) -> None:
    web.objects["/x"] = DATA
    web.objects["/x.sha256"] = hashlib.sha256(b"other").hexdigest().encode()
    for _ in range(2):
        with pytest.raises(ImageRefused, match=r"checksum is wrong.*was expected"):
            await obtain(lone, with_web, web.url("/x"))
    assert web.sent_bytes < len(DATA) + 10_000
    assert await lone.list() == []
    assert not list((tmp_path / "cache/parts").iterdir())
    with await obtain(lone, with_web, web.url("/x"), SHA256) as lease:  # the caller knows better
        assert lease.key == SHA256


@pytest.mark.parametrize("error", [asyncio.CancelledError, HostUnfit])
async def test_what_was_fetched_is_not_fetched_again_when_its_judge_came_to_no_end(
    tmp_path: Path, web: Web, with_web: GoldenSettings, error: type[BaseException]
) -> None:
    """As by the end of the daemon, or on a host that cannot run qemu-img."""

    async def interrupted(_path: Path, _image_type: str) -> Verdict:
        raise error("in the middle of it")

    web.objects["/x"] = DATA
    stopped = ImageCache(tmp_path / "cache", CacheSettings(download=DOWNLOAD), interrupted, SystemClock())
    stopped.prepare()
    with pytest.raises(error):
        await obtain(stopped, with_web, web.url("/x"))
    before = web.sent_bytes
    with await obtain(make_cache(tmp_path), with_web, web.url("/x")) as lease:
        assert lease.path.read_bytes() == DATA
    assert web.sent_bytes - before < 100, "but for its head"
    assert left(tmp_path) == []


async def test_cancelled_it_leaves_a_part_that_is_gone_on_with_and_ages_out(
    tmp_path: Path, web: Web, with_web: GoldenSettings
) -> None:
    clock = ManualClock()
    cache = ImageCache(tmp_path / "cache", CacheSettings(), ImageJudge(virtual_max_bytes=1 << 40), SystemClock())
    cache.prepare()
    web.objects["/x"] = DATA
    begun = asyncio.Event()
    source = open_source(with_web, web.url("/x"))

    def look(progress: Progress) -> None:
        if progress.bytes_processed > MIB:
            begun.set()

    task = asyncio.create_task(cache.obtain(source, "raw", look))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await source.close()
    assert sorted(Path(name).suffix for name in left(tmp_path) if ".lock" not in name) == [".journal", ".part"]
    await cache.sweep()
    assert any(name.endswith(".part") for name in left(tmp_path))
    clock.advance(3 * 365 * 86_400.0)
    later = ImageCache(tmp_path / "cache", CacheSettings(), ImageJudge(virtual_max_bytes=1 << 40), clock)
    await later.sweep()
    assert left(tmp_path) == []


async def test_room_is_made_by_removing_what_was_used_longest_ago_and_is_not_needed(
    tmp_path: Path, web: Web, with_web: GoldenSettings
) -> None:
    cache = make_cache(tmp_path, max_bytes=5 * MIB)
    for name in "abcdef":
        web.objects[f"/{name}"] = name.encode() * MIB
    leases = {name: await obtain(cache, with_web, web.url(f"/{name}")) for name in "abcd"}
    await cache.pin(leases["c"].key)
    for name in "acd":
        leases[name].release()
    leases["e"] = await obtain(cache, with_web, web.url("/e"))
    leases["f"] = await obtain(cache, with_web, web.url("/f"))
    kept = {entry.key: entry for entry in await cache.list()}
    assert set(kept) == {leases[name].key for name in "bcdef"}
    assert kept[leases["c"].key].is_pinned
    assert kept[leases["b"].key].is_in_use
    with pytest.raises(Conflict, match="in use"):
        await cache.delete(leases["b"].key)
    web.objects["/g"] = b"g" * 3 * MIB
    with pytest.raises(NoSpace, match="no room"):
        await obtain(cache, with_web, web.url("/g"))
    for name in "bef":
        leases[name].release()
    await cache.delete(leases["b"].key)
    with pytest.raises(NotFound):
        await cache.delete(leases["b"].key)
    assert left(tmp_path) == []


@pytest.mark.parametrize("key", ["", "..", "../../etc", "x" * 64, "A" * 64])
async def test_a_key_that_is_none_reaches_no_file(cache: ImageCache, key: str) -> None:
    with pytest.raises(NotFound):
        await cache.delete(key)
    with pytest.raises(NotFound):
        await cache.pin(key)


async def test_unused_images_go_and_used_and_pinned_ones_stay(
    tmp_path: Path, web: Web, with_web: GoldenSettings
) -> None:
    clock = ManualClock()

    async def good(path: Path, image_type: str) -> Verdict:
        return Verdict(format=image_type, virtual_size_bytes=1000, data_bytes=1000)

    cache = ImageCache(tmp_path / "cache", CacheSettings(), good, clock)
    cache.prepare()
    keys = {}
    for name in "abc":
        web.objects[f"/{name}"] = name.encode() * 1000
        lease = await obtain(cache, with_web, web.url(f"/{name}"))
        lease.release()
        keys[name] = lease.key
    await cache.pin(keys["b"])
    clock.advance(29 * 86_400.0)
    with await obtain(cache, with_web, web.url("/c")):
        clock.advance(2 * 86_400.0)
        await cache.sweep()
    assert {entry.key for entry in await cache.list()} == {keys["b"], keys["c"]}


async def test_an_etag_is_of_one_url_alone(web: Web, with_web: GoldenSettings, cache: ImageCache) -> None:
    web.objects["/x"] = DATA
    keys = []
    for query, data in (("?id=1", DATA), ("?id=2", DATA[::-1])):
        web.objects["/x"], web.etags["/x"] = data, '"same"'
        with await obtain(cache, with_web, web.url(f"/x{query}")) as lease:
            keys.append(lease.key)
            assert "id=" not in lease.facts.url
    assert keys == [SHA256, hashlib.sha256(DATA[::-1]).hexdigest()]


async def test_knowing_a_checksum_does_not_give_others_images(
    web: Web, with_web: GoldenSettings, cache: ImageCache
) -> None:
    web.objects["/private"], web.objects["/mine"] = DATA, b"mine" * 1000
    (await obtain(cache, with_web, web.url("/private"))).release()
    with pytest.raises(ImageRefused, match="checksum is wrong"):
        await obtain(cache, with_web, web.url("/mine"), SHA256)


async def test_an_image_that_was_damaged_on_disk_is_fetched_again(
    tmp_path: Path, web: Web, with_web: GoldenSettings, cache: ImageCache
) -> None:
    web.objects["/x"] = DATA
    for damage in ("truncate", "facts", "gone"):
        with await obtain(cache, with_web, web.url("/x")) as lease:
            directory = lease.path.parent
        if damage == "truncate":
            os.truncate(directory / "image", 1000)
        elif damage == "facts":
            (directory / "facts.json").write_text("{")
        else:
            (directory / "use").unlink()
        with await obtain(cache, with_web, web.url("/x")) as lease:
            assert not lease.is_hit
            assert lease.path.read_bytes() == DATA
    await cache.sweep()
    assert left(tmp_path) == []


async def test_weak_names_for_versions_are_not_trusted_with_parts(
    tmp_path: Path, web: Web, with_web: GoldenSettings
) -> None:
    web.objects["/x"], web.etags["/x"] = DATA, 'W/"weak"'
    web.cut_after = len(DATA) // 2
    once = DownloadSettings(retry=RetrySettings(attempts=1))
    with pytest.raises(SourceUnreachable):
        await obtain(make_cache(tmp_path, download=once), with_web, web.url("/x"))
    assert left(tmp_path) == []
