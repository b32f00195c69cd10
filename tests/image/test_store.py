"""The store: whole images or none, whoever dies or races; names, checks and removal."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hearth.config import DataDirectory
from hearth.errors import HearthError, InvalidInput, NotFound
from hearth.host.locks import try_lock
from hearth.image.progress import Progress, ignore_progress
from hearth.image.store import Builder, Image, ImageDamaged, ImageStore, Made, build_key
from hearth.model import ImageKind

BUILD_SLOWLY = """
import asyncio, sys
from pathlib import Path
from hearth.config import DataDirectory
from hearth.image.store import ImageStore, Made
from hearth.model import ImageKind

async def build(staging):
    (staging / "half").write_bytes(b"half")
    with open(sys.argv[2], "a") as log:
        log.write("building\\n")
    print("building", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    (staging / "half").rename(staging / "disk")
    return Made(primary="disk", facts={})

def progress(step):
    print(step.message, flush=True)

async def main():
    store = ImageStore(DataDirectory(root=Path(sys.argv[1])))
    image = await store.obtain(ImageKind.ROOTFS, "test", "k" * 64, build, progress)
    print(image.id, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(DataDirectory(root=tmp_path / "data"))


def builder(data: bytes, *, facts: dict[str, str] | None = None) -> Builder:
    async def build(staging: Path) -> Made:
        (staging / "more").mkdir()
        (staging / "more" / "beside").write_bytes(b"beside")
        (staging / "disk").write_bytes(data)
        return Made(primary="disk", facts=facts or {})

    return build


async def build(store: ImageStore, data: bytes, *, name: str = "test", key: str | None = None) -> Image:
    inputs = key or build_key(ImageKind.ROOTFS, {"data": data.hex()})
    return await store.obtain(ImageKind.ROOTFS, name, inputs, builder(data), ignore_progress)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_built_image_is_found_by_name_and_id_and_is_whole(store: ImageStore) -> None:
    image = await store.obtain(ImageKind.ROOTFS, "test", "k", builder(b"data", facts={"x": "y"}), ignore_progress)
    assert image.path.read_bytes() == b"data"
    assert (image.size_bytes, image.current, image.facts) == (4, True, {"x": "y"})
    assert store.get("test") == store.get(image.id) == image
    assert store.list() == [image]
    assert names_in(image.directory) == ["disk", "manifest.json", "more"]
    assert names_in(store.root) == ["downloads", "locks", "names", image.id]
    assert names_in(store.root / "locks") == []
    await store.verify(image)


async def test_same_key_is_built_once(store: ImageStore) -> None:
    first = await build(store, b"data", key="k")
    assert await build(store, b"other", key="k") == first


async def test_two_versions_stand_side_by_side_and_the_name_means_the_newer(store: ImageStore) -> None:
    old, new = await build(store, b"old"), await build(store, b"new")
    assert [image.id for image in store.list()] == [new.id, old.id]
    assert store.get("test").id == new.id
    assert not store.get(old.id).current
    await store.remove(new.id)
    assert store.get("test").id == old.id
    await store.remove("test")
    assert store.list() == []
    assert names_in(store.root) == ["downloads", "locks", "names"]
    assert names_in(store.root / "names") == []


async def test_asking_for_an_older_key_turns_the_name_back(store: ImageStore) -> None:
    old = await build(store, b"old")
    await build(store, b"new")
    await build(store, b"old")
    assert store.get("test").id == old.id


async def test_other_inputs_with_the_same_result_are_one_image(store: ImageStore) -> None:
    first = await build(store, b"data", key="one")
    second = await build(store, b"data", key="two")
    assert second.id == first.id
    assert len(store.list()) == 1


async def test_unknown_name_is_told_with_those_there_are(store: ImageStore) -> None:
    with pytest.raises(NotFound, match=r"none yet.*hearth setup"):
        store.get("debian")
    await build(store, b"a", name="one")
    await build(store, b"b", name="two")
    with pytest.raises(NotFound, match="one, two"):
        store.get("debian")


async def test_name_of_another_kind_is_refused(store: ImageStore) -> None:
    await store.obtain(ImageKind.KERNEL, "kernel", "k", builder(b"a"), ignore_progress)
    with pytest.raises(InvalidInput, match="kernel"):
        await build(store, b"b", name="kernel")
    with pytest.raises(InvalidInput):
        await build(store, b"b", name="../escape")


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "harm",
    [
        lambda image: overwrite(image.path, b"dat4"),
        lambda image: overwrite(image.path, b"dat"),
        lambda image: overwrite(image.path, b"data "),
        lambda image: image.path.unlink(),
        lambda image: overwrite(image.directory / "more/beside", b"besidE"),
        lambda image: overwrite(image.directory / "manifest.json", b"{"),
        lambda image: (image.directory / "manifest.json").unlink(),
    ],
)
async def test_damage_is_found(store: ImageStore, harm: Callable[[Image], None]) -> None:
    image = await build(store, b"data")
    harm(image)
    with pytest.raises(ImageDamaged, match=image.id):
        await store.verify(image)


async def test_one_damaged_manifest_does_not_hide_the_others(store: ImageStore) -> None:
    bad, good = await build(store, b"bad", name="bad"), await build(store, b"good", name="good")
    overwrite(bad.directory / "manifest.json", json.dumps({"id": 7}).encode())
    assert [image.id for image in store.list()] == [good.id]


async def test_failed_build_leaves_nothing_and_the_next_one_works(store: ImageStore) -> None:
    async def fail(staging: Path) -> Made:
        (staging / "half").write_bytes(b"half")
        raise HearthError("no luck")

    with pytest.raises(HearthError, match="no luck"):
        await store.obtain(ImageKind.ROOTFS, "test", "k", fail, ignore_progress)
    assert names_in(store.root) == ["downloads", "locks", "names"]
    assert (await build(store, b"data", key="k")).current


async def test_cancelled_build_leaves_nothing(store: ImageStore) -> None:
    started = asyncio.Event()

    async def hang(staging: Path) -> Made:
        (staging / "half").write_bytes(b"half")
        started.set()
        await asyncio.Event().wait()
        raise AssertionError("never set")

    task = asyncio.create_task(store.obtain(ImageKind.ROOTFS, "test", "k", hang, ignore_progress))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert names_in(store.root) == ["downloads", "locks", "names"]
    assert names_in(store.root / "locks") == []


def start_builder(store: ImageStore, log: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", BUILD_SLOWLY, str(store.root.parent), str(log)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_killed_build_is_never_listed_and_the_next_one_sweeps_it(store: ImageStore, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with start_builder(store, log) as killed:
        assert read_line(killed) == "building"
        killed.send_signal(signal.SIGKILL)
    assert store.list() == []
    assert len(list(store.root.glob("*.tmp"))) == 1
    with start_builder(store, log) as second:
        assert read_line(second) == "building"
        assert len(list(store.root.glob("*.tmp"))) == 1
        second.communicate("go on\n")
    assert store.get("test").path.read_bytes() == b"half"
    assert list(store.root.glob("*.tmp")) == []
    assert names_in(store.root / "locks") == []


def test_sweep_takes_what_a_killed_build_left_and_spares_a_running_one(store: ImageStore, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with start_builder(store, log) as running:
        assert read_line(running) == "building"
        store.sweep()
        assert len(list(store.root.glob("*.tmp"))) == 1
        running.send_signal(signal.SIGKILL)
    store.sweep()
    assert list(store.root.glob("*.tmp")) == []
    assert names_in(store.root / "locks") == []


def test_second_builder_waits_and_takes_what_the_first_made(store: ImageStore, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with start_builder(store, log) as first, start_builder(store, log) as second:
        # Whichever came first builds; the other says that it waits.
        said = {process: read_line(process) for process in (first, second)}
        (building,) = (process for process, line in said.items() if line == "building")
        (waiting,) = (process for process, line in said.items() if "waiting" in line)
        first_id, _ = building.communicate("go on\n")
        assert read_line(waiting) == first_id.split()[-1]
        waiting.communicate()
    assert log.read_text() == "building\n"


async def test_waiting_is_told_as_progress(store: ImageStore) -> None:
    store.prepare()
    held = try_lock(store.root / "locks" / "rootfs-k.lock")
    assert held is not None
    told: list[Progress] = []

    def tell(step: Progress) -> None:
        told.append(step)
        held.discard()

    await store.obtain(ImageKind.ROOTFS, "test", "k", builder(b"data"), tell)
    assert [step.stage for step in told] == ["rootfs"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": ["x", "y"]}, {"a": ["y", "x"]}, False),
        ({"a": "x"}, {"a": "x", "b": ""}, False),
    ],
)
def test_key_depends_on_the_inputs_and_not_on_their_order(
    one: dict[str, object], other: dict[str, object], *, same: bool
) -> None:
    assert (build_key(ImageKind.AGENT, one) == build_key(ImageKind.AGENT, other)) is same
    assert build_key(ImageKind.AGENT, one) != build_key(ImageKind.KERNEL, one)
