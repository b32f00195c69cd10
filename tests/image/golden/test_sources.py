"""Sources tell size and identity, give exactly the ranges asked for, and say which failures are worth another try."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import obstore
import pytest
from tests.image.golden.web import Web

from hearth.bench.s3_server import S3Server
from hearth.errors import HearthError, InvalidInput
from hearth.image.golden.base import (
    Head,
    ImageRefused,
    Source,
    SourceChanged,
    SourceMissing,
    SourceRefused,
    SourceUnreachable,
)
from hearth.image.golden.choosing import open_source
from hearth.image.golden.settings import GoldenSettings, S3Settings, SourcePolicy

DATA = os.urandom(3 << 20)
Put = Callable[[str, bytes], object]


async def bytes_of(source: Source, head: Head, start: int, end: int) -> bytes:
    return b"".join([bytes(piece) async for piece in source.read(head, start, end)])


@asynccontextmanager
async def opened(settings: GoldenSettings, url: str) -> AsyncIterator[Source]:
    source = open_source(settings, url)
    try:
        yield source
    finally:
        await source.close()


@pytest.fixture(params=["s3", "endpoint", "http", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[GoldenSettings, str, Put]:
    """Settings, the URL of DATA, and a way to replace it, with one for its checksum file."""
    if request.param in ("s3", "endpoint"):
        server, bucket = request.getfixturevalue("s3"), request.getfixturevalue("bucket")
        store = server.store(bucket)
        above = f"s3://{bucket}" if request.param == "s3" else f"{server.endpoint}/{bucket}"
        return request.getfixturevalue("with_s3"), f"{above}/a/b.img", lambda name, data: obstore.put(store, name, data)
    if request.param == "http":
        web: Web = request.getfixturevalue("web")
        put = lambda name, data: web.objects.update({f"/{name}": data})  # noqa: E731
        return request.getfixturevalue("with_web"), web.url("/a/b.img"), put
    (tmp_path / "a").mkdir()

    def replace(name: str, data: bytes) -> None:
        (tmp_path / "new").write_bytes(data)
        (tmp_path / "new").rename(tmp_path / name)

    policy = SourcePolicy(directories=(tmp_path,))
    return GoldenSettings(policy=policy), f"file://{tmp_path}/a/b.img", replace


async def test_ranges_of_one_object_and_of_no_other(place: tuple[GoldenSettings, str, Put]) -> None:
    settings, url, put = place
    put("a/b.img", DATA)
    async with opened(settings, url) as source:
        head = await source.head()
        assert head.size_bytes == len(DATA)
        assert head.validator
        for start, end in ((0, 1), (0, len(DATA)), (1_000_000, 2_000_001), (len(DATA) - 1, len(DATA))):
            assert await bytes_of(source, head, start, end) == DATA[start:end]
        put("a/b.img", DATA[::-1])
        with pytest.raises(SourceChanged, match="changed"):
            await bytes_of(source, head, 5, 10)


async def test_a_checksum_file_is_given_when_there_is_one(place: tuple[GoldenSettings, str, Put]) -> None:
    settings, url, put = place
    put("a/b.img", DATA)
    async with opened(settings, url) as source:
        assert await source.checksum_file() is None
        put("a/b.img.sha256", b"hello")
        assert await source.checksum_file() == b"hello"
        put("a/b.img.sha256", b"")
        assert await source.checksum_file() == b""
        put("a/b.img.sha256", bytes(100_000))
        with pytest.raises(ImageRefused, match="too long"):
            await source.checksum_file()


async def test_what_is_not_there_is_said_to_be_missing(place: tuple[GoldenSettings, str, Put]) -> None:
    settings, url, _ = place
    async with opened(settings, url) as source:
        with pytest.raises(SourceMissing, match="no such image"):
            await source.head()


async def test_wrong_credentials_are_not_worth_another_try_and_are_not_told(s3: S3Server, bucket: str) -> None:
    settings = S3Settings(endpoint=s3.endpoint, access_key=s3.access_key, secret_key="not-the-secret")
    async with opened(GoldenSettings(s3=settings), f"s3://{bucket}/x") as source:
        with pytest.raises(SourceRefused) as caught:
            await source.head()
    assert "not-the-secret" not in str(caught.value) + repr(settings)


async def test_a_storage_that_is_away_is_worth_another_try(bucket: str, with_s3: GoldenSettings) -> None:
    assert with_s3.s3 is not None
    gone = dataclasses.replace(with_s3.s3, endpoint="http://127.0.0.1:1")
    async with opened(GoldenSettings(s3=gone), f"s3://{bucket}/x") as source:
        with pytest.raises(SourceUnreachable):
            await source.head()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (500, SourceUnreachable),
        (503, SourceUnreachable),
        (429, SourceUnreachable),
        (403, SourceRefused),
        (401, SourceRefused),
        (400, SourceRefused),
        (404, SourceMissing),
        (412, SourceChanged),
    ],
)
async def test_statuses_of_web_servers(
    web: Web, with_web: GoldenSettings, status: int, error: type[HearthError]
) -> None:
    web.objects["/x"], web.statuses["/x"] = DATA, [status]
    async with opened(with_web, web.url("/x")) as source:
        with pytest.raises(error):
            await source.head()


async def test_a_body_that_is_cut_off_is_worth_another_try(web: Web, with_web: GoldenSettings) -> None:
    web.objects["/x"] = DATA
    async with opened(with_web, web.url("/x")) as source:
        head = await source.head()
        web.cut_after = 100_000
        with pytest.raises(SourceUnreachable):
            await bytes_of(source, head, 0, len(DATA))


@pytest.mark.parametrize("kind", ["s3", "http"])
async def test_a_server_that_sends_more_than_was_asked_for_is_refused(
    web: Web, with_web: GoldenSettings, kind: str
) -> None:
    web.objects["/bucket/y"], web.surplus = DATA, b"!"
    storage = S3Settings(endpoint=web.url(""), access_key="a", secret_key="b", buckets=("bucket",))
    settings = GoldenSettings(s3=storage) if kind == "s3" else with_web
    async with opened(settings, "s3://bucket/y" if kind == "s3" else web.url("/bucket/y")) as source:
        head = await source.head()
        with pytest.raises(SourceRefused, match="more came"):
            await bytes_of(source, head, len(DATA) - 10, len(DATA))


async def test_a_server_without_ranges_is_read_as_a_whole(web: Web, with_web: GoldenSettings) -> None:
    web.objects["/x"], web.has_ranges = DATA, False
    async with opened(with_web, web.url("/x")) as source:
        head = await source.head()
        assert (head.has_ranges, head.size_bytes) == (False, len(DATA))
        assert await bytes_of(source, head, 0, len(DATA)) == DATA


async def test_redirects_to_the_listed_host_are_followed(web: Web, with_web: GoldenSettings) -> None:
    web.objects["/x"], web.redirects["/old"] = DATA, "/older"
    web.redirects["/older"] = web.url("/x")
    async with opened(with_web, web.url("/old")) as source:
        assert await bytes_of(source, await source.head(), 0, 10) == DATA[:10]


METADATA = "http://169.254.169.254/latest/meta-data/"


@pytest.mark.parametrize("target", [METADATA, "http://127.0.0.2:1/x", "http://localhost/x", "file:///etc/passwd"])
async def test_no_redirect_leads_to_where_a_url_may_not(web: Web, with_web: GoldenSettings, target: str) -> None:
    web.redirects["/x"] = target
    async with opened(with_web, web.url("/x")) as source:
        with pytest.raises(SourceRefused):
            await source.head()


async def test_redirects_without_end_are_given_up(web: Web, with_web: GoldenSettings) -> None:
    web.redirects["/x"] = "/x"
    async with opened(with_web, web.url("/x")) as source:
        with pytest.raises(SourceRefused, match="more than 5"):
            await source.head()
    assert len(web.asked) == 6


LISTED_METADATA = ("169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]", "0xa9fea9fe", "2852039166")
LISTED_INSIDE = ("127.0.0.2", "localhost", "[::1]", "10.0.0.1", "0.0.0.0", "0x7f000002")


@pytest.mark.parametrize("host", LISTED_METADATA + LISTED_INSIDE)
async def test_a_listed_name_does_not_open_an_address_that_is_not_public(host: str) -> None:
    settings = GoldenSettings(policy=SourcePolicy(http_hosts=(host,)))
    async with opened(settings, f"http://{host}/image") as source:
        with pytest.raises(SourceRefused, match="public Internet"):
            await source.head()


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("", InvalidInput),
        ("no-url", InvalidInput),
        ("ftp://example.org/x", InvalidInput),
        ("s3://bucket", InvalidInput),
        ("s3://bucket/", InvalidInput),
        ("s3://bucket/../x", InvalidInput),
        ("s3://bucket/a//b", InvalidInput),
        ("s3://BUCKET/x", InvalidInput),
        ("s3://other-bucket/x", SourceRefused),
        ("http://s3.example.org:9000/bucket", InvalidInput),
        ("http://s3.example.org:9000/bucket/a b", InvalidInput),
        ("http://s3.example.org:99999/bucket/x", InvalidInput),
        ("http://user:word@s3.example.org:9000/bucket/x", SourceRefused),
        ("http://s3.example.org/bucket/x", SourceRefused),
        ("https://s3.example.org:9000/bucket/x", SourceRefused),
        ("http://example.org/x", SourceRefused),
        (METADATA, SourceRefused),
        ("file:///etc/passwd", SourceRefused),
        ("file:///images/../etc/passwd", SourceRefused),
        ("file:///images/%2e%2e/etc/passwd", SourceRefused),
        ("file:///images", SourceRefused),
        ("file:///images/x%00y", InvalidInput),
        ("file:///images/x%0ay", InvalidInput),
        ("file:///images/%1b[31mx", InvalidInput),
        ("file:///images/x?y", InvalidInput),
        ("file:///images/x#y", InvalidInput),
        ("http://[::1/x", InvalidInput),
        ("http://" + "a" * 3000, InvalidInput),
    ],
)
def test_urls_that_lead_nowhere_are_refused_by_the_name_of_their_field(url: str, error: type[HearthError]) -> None:
    s3 = S3Settings(endpoint="http://s3.example.org:9000", access_key="a", secret_key="b", buckets=("bucket",))
    settings = GoldenSettings(s3=s3, policy=SourcePolicy(directories=(Path("/images"),)))
    with pytest.raises(error) as caught:
        open_source(settings, url)
    assert caught.value.field == "image_url"
    assert "word" not in str(caught.value)


async def test_no_link_leads_out_of_an_enabled_directory(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "up").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    settings = GoldenSettings(policy=SourcePolicy(directories=(tmp_path,)))
    wanted = {"link": SourceRefused, "up/passwd": SourceMissing, "pipe": SourceRefused, "x" * 300: SourceRefused}
    for name, error in wanted.items():
        with pytest.raises(error):
            await open_source(settings, f"file://{tmp_path}/{name}").head()
