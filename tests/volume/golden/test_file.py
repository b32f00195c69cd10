"""Volumes as files, where two daemons use one directory: neither takes what the other makes for left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.test_golden_backends import DATA, contents, expected, living, make_image, spec

from hearth.host.locks import lock
from hearth.volume.golden.base import GoldenImage, Target
from hearth.volume.golden.file import FileGoldenVolumes
from hearth.volume.golden.populate import populate

WAIT_S = 30.0


def ignore(_done: int, _total: int) -> None:
    """Nobody looks."""


@pytest.fixture(params=["qcow2", "raw"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> GoldenImage:
    return make_image(tmp_path, request.param, DATA)


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[tuple[FileGoldenVolumes, FileGoldenVolumes]]:
    root = tmp_path / "shared"
    one, other = (FileGoldenVolumes(root, home=home) for home in ("host-one", "host-other"))
    one.prepare()
    other.prepare()
    yield one, other


async def made(volumes: FileGoldenVolumes, image: GoldenImage, name: str, job: str) -> Target:
    target = await volumes.create(spec(name, job=job), image)
    await populate(image, target, ignore)
    return target


async def test_what_another_daemon_makes_is_not_swept_whatever_jobs_are_known_here(
    daemons: tuple[FileGoldenVolumes, FileGoldenVolumes], image: GoldenImage, tmp_path: Path
) -> None:
    one, other = daemons
    copy = await made(one, image, "copy", "job-1")
    clone = await one.clone(spec("clone", job="job-2"), image)
    left = await made(other, image, "left", "job-3")
    assert await other.sweep(living()) == ["left"]
    assert not left.path.exists()
    for target in (copy, clone):
        assert contents(await one.publish(target), tmp_path) == expected()
    assert await other.sweep(living()) == []
    assert [volume.name for volume in await other.list()] == ["clone", "copy"]
    for volume in await one.list():
        assert contents(volume, tmp_path) == expected()


async def test_its_own_daemon_sweeps_what_it_began_and_what_an_older_one_left_unsigned(
    daemons: tuple[FileGoldenVolumes, FileGoldenVolumes], image: GoldenImage, tmp_path: Path
) -> None:
    one, _ = daemons
    await made(one, image, "dead", "job-dead")
    await made(FileGoldenVolumes(tmp_path / "shared"), image, "older", "job-older")
    alive = await made(one, image, "living", "job-living")
    assert await one.sweep(living("job-living")) == ["dead", "older"]
    assert contents(await one.publish(alive), tmp_path) == expected()


@pytest.mark.parametrize("held", ["lock", "begin.lock"])
async def test_a_clone_that_is_just_begun_is_not_taken_for_left_behind(
    daemons: tuple[FileGoldenVolumes, FileGoldenVolumes], image: GoldenImage, tmp_path: Path, held: str
) -> None:
    one, other = daemons
    async with asyncio.timeout(WAIT_S):
        async with lock(tmp_path / "shared" / held, timeout_s=WAIT_S):
            cloning = asyncio.create_task(one.clone(spec(job="job-living"), image))
            await asyncio.wait([cloning], timeout=0.3)  # as far as it comes
        await other.sweep(living())  # which asks at once, while the other one looks ten times a second
        await one.sweep(living("job-living"))
        target = await cloning
    assert contents(await one.publish(target), tmp_path) == expected()


async def test_no_base_goes_while_it_is_not_known_what_a_volume_lies_over(
    daemons: tuple[FileGoldenVolumes, FileGoldenVolumes], image: GoldenImage, tmp_path: Path
) -> None:
    one, _ = daemons
    volume = await one.publish(await one.clone(spec(), image))
    facts = volume.path.with_name("volume.json")
    before = facts.read_bytes()
    facts.write_bytes(b'{"of": "a later version"}')
    assert await one.list() == []
    await one.sweep(living())
    facts.write_bytes(before)
    assert contents(await one.describe("golden"), tmp_path) == expected()
