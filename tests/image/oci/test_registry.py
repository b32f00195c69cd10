"""Pulls from Debian's own registry: what is verified, who may, what a cut line costs, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import zstandard
from tests.image.layers.archives import archive, file
from tests.image.oci.images import INDEX, Built, Pusher, build, digest, index_of
from tests.image.oci.servers import Line, Tokens, htpasswd, registry
from tests.ports import free_port

from hearth.errors import Forbidden
from hearth.image.layers.refused import ImageRefused
from hearth.image.oci.addresses import read_registries
from hearth.image.oci.blobs import BlobCache
from hearth.image.oci.documents import Descriptor, Platform
from hearth.image.oci.reference import parse_reference
from hearth.image.oci.registry import Credentials, Registry, Resolved
from hearth.image.oci.transport import RegistryNotFound, RegistryRefused, RegistryUnreachable, Transport

AMD64 = Platform(architecture="amd64")
NOISE = os.urandom(2_000_000)
ONE = archive(file("one", NOISE))
TWO = archive(file("two", "2"))
WHO = Credentials(username="tester", password="a secret word")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry for everybody, with images in it."""
    with registry(tmp_path_factory.mktemp("registry")) as found:
        pusher = Pusher(host=found, repository="some/image")
        amd, arm = image(), build([TWO], architecture="arm64")
        pusher.push("1", amd)
        pusher.push("arm", arm)
        pusher.manifest("both", index_of({"arm64": arm, "amd64": amd}), INDEX)
        yield found


def image() -> Built:
    packed = [gzip.compress(ONE, 1, mtime=0), zstandard.ZstdCompressor().compress(TWO), archive(file("3"))]
    return build([ONE, TWO, archive(file("3"))], packed=packed, config={"Env": ["A=1"], "WorkingDir": "/w"})


@contextlib.asynccontextmanager
async def asking(
    reference: str, credentials: Credentials | None = None, *, insecure: bool = True
) -> AsyncIterator[Registry]:
    transport = Transport(read_registries([], ["127.0.0.1"]))
    try:
        yield Registry(transport, parse_reference(reference), credentials, insecure=insecure)
    finally:
        await transport.close()


async def resolved(reference: str, credentials: Credentials | None = None, platform: Platform = AMD64) -> Resolved:
    async with asking(reference, credentials) as found:
        return await found.resolve(platform)


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    made = BlobCache(tmp_path / "blobs", max_bytes=1 << 30)
    made.prepare()
    return made


async def test_a_tag_a_digest_and_an_index_lead_to_the_image(host: str) -> None:
    by_tag = await resolved(f"{host}/some/image:1")
    assert [layer.digest for layer in by_tag.layers] == [digest(each) for each in list(image().blobs.values())[1:]]
    assert by_tag.config.config is not None and by_tag.config.config.working_dir == "/w"
    assert await resolved(f"{host}/some/image@{by_tag.digest}") == by_tag
    assert await resolved(f"{host}/some/image:both") == by_tag
    arm = await resolved(f"{host}/some/image:both", platform=Platform(architecture="arm64"))
    assert len(arm.layers) == 1
    with pytest.raises(ImageRefused, match="linux/amd64, linux/arm64"):
        await resolved(f"{host}/some/image:both", platform=Platform(architecture="s390x"))
    with pytest.raises(ImageRefused, match="it is for linux/arm64"):
        await resolved(f"{host}/some/image:arm")


async def test_what_is_not_there_is_not_found(host: str) -> None:
    for reference in (f"{host}/some/image:no", f"{host}/no/image", f"{host}/some/image@sha256:{'0' * 64}"):
        with pytest.raises(RegistryNotFound):
            await resolved(reference)


async def test_layers_come_verified_and_once(host: str, cache: BlobCache) -> None:
    counted = 0

    def count(size: int) -> None:
        nonlocal counted
        counted += size

    with Line(host, after=0, at_most=0) as line:
        async with asking(f"{line.address}/some/image:1") as found:
            layers = (await found.resolve(AMD64)).layers
            before = line.carried
            # Many want the same at once, as different users' pulls do: one of them fetches it.
            wanted = [cache.obtain(found, layers[0], count) for _ in range(5)]
            paths = await asyncio.gather(*wanted)
        assert len(set(paths)) == 1 and paths[0].read_bytes() == gzip.compress(ONE, 1, mtime=0)
        assert counted == 5 * layers[0].size
        assert line.carried - before < 1.2 * layers[0].size


async def test_a_line_that_is_cut_again_and_again_costs_no_byte_twice(host: str, cache: BlobCache) -> None:
    with Line(host, after=600_000, at_most=3) as line:
        async with asking(f"{line.address}/some/image:1") as found:
            layer = (await found.resolve(AMD64)).layers[0]
            counted: list[int] = []
            path = await cache.obtain(found, layer, counted.append)
        assert path.read_bytes() == gzip.compress(ONE, 1, mtime=0)
        assert line.cuts_left == 0
        assert sum(counted) == layer.size
        assert line.carried < 1.3 * layer.size


async def test_what_a_pull_that_was_broken_off_has_brought_is_kept(host: str, cache: BlobCache, tmp_path: Path) -> None:
    came = asyncio.Event()
    async with asking(f"{host}/some/image:1") as found:
        layer = (await found.resolve(AMD64)).layers[0]
        pulling = asyncio.create_task(cache.obtain(found, layer, lambda size: came.set() if size else None))
        async with asyncio.timeout(60):
            await came.wait()
        pulling.cancel()
        await asyncio.gather(pulling, return_exceptions=True)
        (part,) = (tmp_path / "blobs").glob("*/*.part")
        kept = part.stat().st_size
        assert 0 < kept < layer.size
        counted: list[int] = []
        await cache.obtain(found, layer, counted.append)
    assert counted[0] == kept and sum(counted) == layer.size


async def test_a_part_that_was_damaged_is_found_out_and_nothing_is_kept(host: str, cache: BlobCache) -> None:
    async with asking(f"{host}/some/image:1") as found:
        layer = (await found.resolve(AMD64)).layers[0]
        path = cache._path(found, layer)
        path.parent.mkdir()
        part = path.with_name(f"{path.name}.part")
        part.write_bytes(b"not what it was")
        with pytest.raises(ImageRefused, match="something else"):
            await cache.obtain(found, layer, lambda _: None)
        assert not part.exists() and not path.exists()
        assert (await cache.obtain(found, layer, lambda _: None)).stat().st_size == layer.size


async def test_the_cache_stays_within_its_bounds(host: str, tmp_path: Path) -> None:
    small = BlobCache(tmp_path / "small", max_bytes=1000)
    small.prepare()
    async with asking(f"{host}/some/image:1") as found:
        layers = (await found.resolve(AMD64)).layers
        paths = [await small.obtain(found, layer, lambda _: None) for layer in layers]
        os.utime(paths[1], (1, 1))
        with small.kept(found, [layers[0]]):
            await small.evict()
            assert [path.exists() for path in paths] == [True, False, False]
        await small.evict()
        assert not paths[0].exists()


async def test_who_may_not_pull_gets_nothing_out_of_the_cache(tmp_path: Path, cache: BlobCache) -> None:
    with registry(tmp_path / "closed", auth=htpasswd(tmp_path / "closed", WHO.username, WHO.password)) as host:
        Pusher.basic(host, "private", WHO.username, WHO.password).push("latest", image())
        async with asking(f"{host}/private", WHO) as owner:
            layer = (await owner.resolve(AMD64)).layers[0]
            path = await cache.obtain(owner, layer, lambda _: None)
        wrong = Credentials(username=WHO.username, password="wrong")
        for credentials in (None, wrong):
            async with asking(f"{host}/private", credentials) as stranger:
                with pytest.raises(RegistryRefused) as caught:
                    await stranger.resolve(AMD64)
                assert "wrong" not in str(caught.value)
                with pytest.raises(RegistryRefused):
                    await cache.obtain(stranger, layer, lambda _: None)
                path.rename(path.with_name(f"{path.name}.part"))  # whole, but not judged yet
                with pytest.raises(RegistryRefused):
                    await cache.obtain(stranger, layer, lambda _: None)
                path.with_name(f"{path.name}.part").rename(path)


async def test_another_registry_gets_nothing_out_of_the_cache_for_its_word(host: str, cache: BlobCache) -> None:
    async with asking(f"{host}/some/image:1") as found:
        layer = (await found.resolve(AMD64)).layers[0]
        first = await cache.obtain(found, layer, lambda _: None)
    with Line(host, after=0, at_most=0) as other:
        async with asking(f"{other.address}/some/image:1") as found:
            before = other.carried
            second = await cache.obtain(found, layer, lambda _: None)
            assert second != first and other.carried - before >= layer.size


async def test_tokens_are_fetched_where_the_registry_says(tmp_path: Path) -> None:
    tokens = Tokens(user=WHO.username, password=WHO.password)
    with tokens.serving():
        directory = tmp_path / "tokens"
        with registry(directory, auth=tokens.configuration(directory)) as host:
            pusher = Pusher(host=host, repository="team/app")
            pusher.headers["Authorization"] = (
                f"Bearer {tokens.token('tests', 'repository:team/app:x', ['pull', 'push'])}"
            )
            pusher.push("1", image())
            found = await resolved(f"{host}/team/app:1", WHO)
            assert len(found.layers) == 3
            assert tokens.asked[-1]["scope"] == ["repository:team/app:pull"]
            assert tokens.asked[-1]["service"] == ["tests"]
            with pytest.raises(RegistryRefused):
                await resolved(f"{host}/team/app:1", Credentials(username="x", password="y"))


async def test_registries_that_are_not_public_need_the_operators_word(host: str) -> None:
    port = host.partition(":")[2]
    closed = Transport(read_registries([], []))
    open_to_other = Transport(read_registries(["127.0.0.2", "10.0.0.0/8"], []))
    try:
        for name in (host, f"localhost:{port}", f"[::1]:{port}", f"[::ffff:127.0.0.1]:{port}", "169.254.169.254"):
            for transport in (closed, open_to_other):
                with pytest.raises(Forbidden):
                    await Registry(transport, parse_reference(f"{name}/x"), None, insecure=False).resolve(AMD64)
            with pytest.raises(Forbidden):
                Registry(closed, parse_reference(f"{name}/x"), None, insecure=True)
    finally:
        await closed.close()
        await open_to_other.close()


async def test_a_registry_that_is_not_there_is_named() -> None:
    port = free_port()
    with pytest.raises(RegistryUnreachable, match=str(port)):
        await resolved(f"127.0.0.1:{port}/x")


async def test_a_manifest_that_lies_about_its_layers_is_found_out(host: str, cache: BlobCache) -> None:
    document = json.loads(image().manifest)
    wrong = Descriptor(digest=document["layers"][0]["digest"], size=document["layers"][0]["size"] - 1)
    async with asking(f"{host}/some/image:1") as found:
        with pytest.raises((ImageRefused, RegistryUnreachable)):
            await cache.obtain(found, wrong, lambda _: None)
