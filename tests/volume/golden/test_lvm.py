"""LVM's commands on a real volume group on a loop device; without device-mapper nothing is activated."""

from __future__ import annotations

import asyncio
import json
import string
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.volume.golden.groups import NO_DRIVER, volume_group

from hearth.errors import Conflict, InvalidInput, NoSpace, NotFound
from hearth.host.process import CommandFailed
from hearth.volume.golden.lvm import Lvm, LvmSettings
from hearth.volume.golden.lvm_reports import LvmFailed, parse_volumes, translate
from hearth.volume.golden.lvm_words import (
    check_lvm_name,
    create_words,
    extend_words,
    rename_words,
    retag_words,
    snapshot_words,
    volume_words,
)
from hearth.volume.names import MAX_CHARACTERS

MIB = 1 << 20
KEY = "0123456789abcdef" * 4
TAGS = {"hearth_job": "job-1", "hearth_image": KEY}


def test_the_command_lines() -> None:
    tags = ["--addtag", f"hearth_image={KEY}", "--addtag", "hearth_job=job-1"]
    assert create_words("data", "x", 10_000_000, TAGS, pool=None, has_driver=True) == [
        *("lvcreate", "-y", "-Wy", "-Zy", "-L", "10000384b"),
        *(*tags, "-n", "x", "data"),
    ]
    assert create_words("data", "x", MIB, TAGS, pool="thin", has_driver=True) == [
        *("lvcreate", "-y", "-V", "1048576b", "--thinpool", "thin"),
        *(*tags, "-n", "x", "data"),
    ]
    assert snapshot_words("data", "base", "x", {}) == ["lvcreate", "-y", "-s", "-kn", "-ay", "-n", "x", "data/base"]
    assert rename_words("data", "x", "y") == ["lvrename", "-y", "data", "x", "y"]
    assert extend_words("data", "x", 513) == ["lvextend", "-y", "-L", "1024b", "data/x"]
    assert retag_words("data", "x", add={"a": "1"}, remove={"b": "2"}) == [
        *("lvchange", "-y", "--deltag", "b=2", "--addtag", "a=1", "data/x"),
    ]
    assert volume_words("data")[:6] == ["lvs", "--reportformat", "json", "--units", "b", "--nosuffix"]


@pytest.mark.parametrize("tags", [{"a": "b c"}, {"a": "b,c"}, {"-a": "b"}, {"a": "ö"}, {"a": "x" * 2000}])
def test_tags_that_lvm_would_take_apart_are_refused(tags: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        create_words("data", "x", MIB, tags, pool=None, has_driver=True)


@pytest.mark.parametrize("report", [b"", b"{}", b"[]", b'{"report": [{"lv": [{"lv_name": "x"}]}]}', b"  WARNING: x"])
def test_what_is_no_report_is_an_error(report: bytes) -> None:
    with pytest.raises(LvmFailed):
        parse_volumes(report)


def test_whether_a_volume_is_open_is_told_or_not_known() -> None:
    row = dict.fromkeys(volume_words("x")[7].split(","), "") | {"lv_name": "x", "lv_size": "4194304", "chunk_size": "0"}
    for said, is_open in (("open", True), ("", False), ("unknown", None)):
        report = {"report": [{"lv": [row | {"lv_device_open": said, "data_percent": "12.50"}]}]}
        (volume,) = parse_volumes(json.dumps(report).encode())
        assert (volume.is_open, volume.data_percent, volume.metadata_percent) == (is_open, 12.5, None)


def test_what_is_not_known_stays_as_it_was_said() -> None:
    error = translate(CommandFailed(["lvs"], 5, "  WARNING: something\n  The moon is full."))
    assert isinstance(error, LvmFailed)
    assert "The moon is full." in error.details
    assert "WARNING" not in error.details


@pytest.mark.parametrize(
    "said",
    [
        "  WARNING: Remaining free space in metadata of thin pool data/pool is too low (80.00% >= 75.00%).\n"
        "  Cannot create new thin volume, free space in thin pool data/pool reached threshold.",
        "  Cannot send messages to thin pool data-pool-tpool (253:2) with read only metadata.",
    ],
)
def test_what_lvm_says_of_a_pool_without_room_for_metadata_is_told_as_no_space(said: str) -> None:
    error = translate(CommandFailed(["lvcreate"], 5, said))
    assert isinstance(error, NoSpace)
    assert "thin pool" in error.brief


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LvmSettings]:
    """A volume group of 252 MiB on a loop device, seen by nobody but these tests."""
    with volume_group(tmp_path_factory.mktemp("lvm"), size_mib=256, has_driver=False) as made:
        yield made


@pytest.fixture
def lvm(group: LvmSettings) -> Iterator[Lvm]:
    """The group, empty before and after."""
    made = Lvm(group)
    yield made

    async def clear() -> None:
        for volume in await made.volumes():
            await made.remove(volume.name, uuid=volume.uuid, tag=("hearth_job", volume.tag("hearth_job")))

    asyncio.run(clear())


@pytest.mark.root
async def test_volumes_are_made_with_tags_renamed_extended_and_removed(lvm: Lvm) -> None:
    before = await lvm.group()
    await lvm.create("golden.img+1", 10_000_000, TAGS)
    made = await lvm.describe("golden.img+1")
    assert made.size_bytes == before.rounded(10_000_000) == 12 * MIB
    assert (made.tag("hearth_job"), made.tag("hearth_image"), made.tag("other")) == ("job-1", KEY, "")
    assert (await lvm.group()).free_bytes == before.free_bytes - 12 * MIB
    await lvm.rename("golden.img+1", "golden")
    await lvm.extend("golden", 20_000_000)
    await lvm.retag("golden", add={"hearth_job": "job-2"}, remove={"hearth_job": "job-1"})
    (volume,) = await lvm.volumes()
    assert (volume.name, volume.uuid, volume.size_bytes) == ("golden", made.uuid, 20 * MIB)
    assert volume.tag("hearth_job") == "job-2"
    await lvm.remove("golden", uuid=made.uuid, tag=("hearth_job", "job-2"))
    await lvm.remove("golden", uuid=made.uuid, tag=("hearth_job", "job-2"))
    assert await lvm.volumes() == []


@pytest.mark.root
async def test_only_the_volume_that_was_meant_is_removed(lvm: Lvm) -> None:
    await lvm.create("golden", MIB, TAGS)
    made = await lvm.describe("golden")
    for uuid, tag in ((made.uuid, ("hearth_job", "job-9")), ("another", ("hearth_job", "job-1"))):
        with pytest.raises(Conflict, match="meant"):
            await lvm.remove("golden", uuid=uuid, tag=tag)
    assert await lvm.volumes() == [made]


@pytest.mark.root
async def test_what_goes_wrong_is_said_in_our_words(lvm: Lvm, group: LvmSettings) -> None:
    await lvm.create("golden", MIB, TAGS)
    await lvm.create("other", MIB, TAGS)
    with pytest.raises(Conflict):
        await lvm.create("golden", MIB, TAGS)
    with pytest.raises(NoSpace):
        await lvm.create("large", 1 << 40, TAGS)
    with pytest.raises(NoSpace):
        await lvm.extend("golden", 1 << 40)
    for work in (lvm.describe("none"), lvm.extend("none", MIB), lvm.rename("none", "x")):
        with pytest.raises(NotFound):
            await work
    with pytest.raises(Conflict):
        await lvm.rename("golden", "other")
    with pytest.raises(InvalidInput):
        await lvm.create("golden2", 0, TAGS)
    nowhere = Lvm(LvmSettings(group="none", lock=group.lock, environment=group.environment, has_driver=False))
    with pytest.raises(NotFound):
        await nowhere.group()
    assert sorted(volume.name for volume in await lvm.volumes()) == ["golden", "other"]


@pytest.mark.root
async def test_changes_of_one_group_follow_one_another_and_end_when_cancelled(lvm: Lvm, group: LvmSettings) -> None:
    other = Lvm(group)

    async def create(number: int) -> None:
        chosen = (lvm, other)[number % 2]
        async with chosen.alone():
            await chosen.create(f"v{number}", MIB, TAGS)

    makers = [asyncio.create_task(create(number)) for number in range(4)]
    await asyncio.wait(makers, return_when=asyncio.FIRST_COMPLETED)
    makers[-1].cancel()
    await asyncio.wait(makers)
    names = {volume.name for volume in await lvm.volumes()}
    assert {"v0", "v1", "v2"} <= names <= {"v0", "v1", "v2", "v3"}


LETTERS = string.ascii_letters + string.digits + "+_.-/@ :"


@pytest.mark.root
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.text(LETTERS, min_size=1, max_size=12))
@example("x" * MAX_CHARACTERS)
@example("-" * 3)
@example("a" + "-" * (MAX_CHARACTERS - 1))
@example(".")
@example("..")
@example("pvmove0")
@example("snapshot")
@example("x_rimage_0")
@example("x_vorigin")
def test_every_name_that_we_take_lvm_takes(group: LvmSettings, name: str) -> None:
    environment = {**group.environment, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LVM_SUPPRESS_FD_WARNINGS": "1"}
    words = ["lvcreate", *NO_DRIVER, "--test", "-an", "-Zn", "-Wn", "-y", "-l", "1", "-n", name, group.group]
    try:
        check_lvm_name(group.group, name)
    except InvalidInput:
        return
    subprocess.run(words, env=environment, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("group", "name"), [("g" * 60, "x" * 59), ("g" * 20, "-" * 49), ("g-" * 20, "x" * 59), ("g", "x" * 100)]
)
def test_what_device_mapper_would_call_it_has_bounds(group: str, name: str) -> None:
    longer = name + "xx"
    check_lvm_name(group, name if name[0] != "-" else f"x{name[1:]}")
    with pytest.raises(InvalidInput) as caught:
        check_lvm_name(group, longer if name[0] != "-" else f"x{longer}")
    assert caught.value.field == "volume_name"
