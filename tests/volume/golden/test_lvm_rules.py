"""What volumes are by their names and tags, which thin pool is used, and what it lets in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hearth.errors import HostUnfit, InvalidInput, NoSpace
from hearth.volume.golden.base import GoldenImage
from hearth.volume.golden.lvm_aside import Aside, aside_name, base_of, check_name, golden_of, is_finished, kind_of
from hearth.volume.golden.lvm_reports import LogicalVolume
from hearth.volume.golden.lvm_thin import THICK, ThinChoice, admit, choose_pool

MIB = 1 << 20
OURS = frozenset({"hearth_job=job-1", "hearth_image=abc", "hearth_home=here", "owner=ada"})
THIN_POOL = "twi-aotz--"
VOLUME = LogicalVolume(
    name="golden",
    uuid="u",
    size_bytes=100 * MIB,
    attributes="-wi-a-----",
    tags=OURS,
    path="/dev/data/golden",
    is_open=False,
    pool="",
    origin="",
    data_percent=None,
    metadata_percent=None,
    chunk_bytes=0,
)
POOL = replace(VOLUME, name="thin", attributes=THIN_POOL, tags=frozenset(), data_percent=50.0, metadata_percent=10.0)


@pytest.mark.parametrize("kind", Aside)
def test_a_volume_aside_is_known_by_name_and_tags_together(kind: Aside) -> None:
    aside = replace(VOLUME, name=aside_name(kind))
    assert (kind_of(aside), is_finished(aside)) == (kind, False)
    assert kind_of(replace(aside, tags=frozenset())) is None
    assert kind_of(replace(aside, name=f"my{aside.name}")) is None


def test_only_a_volume_with_both_tags_and_a_name_for_people_is_finished() -> None:
    assert is_finished(VOLUME)
    for tags in (frozenset(), frozenset({"hearth_job=job-1"}), frozenset({"hearth_image=abc"}), frozenset({"ours"})):
        assert not is_finished(replace(VOLUME, tags=tags))


def test_what_is_told_of_a_volume_has_none_of_our_own_tags() -> None:
    grows = replace(VOLUME, tags=OURS | {f"hearth_grows_from={60 * MIB}", "hearth_name=golden"})
    golden = golden_of(grows)
    assert golden.tags == {"owner": "ada", "hearth_job": "job-1", "hearth_image": "abc"}
    assert (golden.size_bytes, golden.path) == (60 * MIB, Path("/dev/data/golden"))


def test_a_name_like_those_of_volumes_aside_is_refused() -> None:
    assert check_name("data", "hearth") == "hearth"
    for name in (aside_name(Aside.NEW), "hearth.x", "hearth."):
        with pytest.raises(InvalidInput) as caught:
            check_name("data", name)
        assert caught.value.field == "volume_name"


def test_a_base_belongs_to_an_image_a_format_and_a_data_directory() -> None:
    image = GoldenImage(path=Path("x"), format="raw", key="abc", size_bytes=1, virtual_size_bytes=1)
    base = replace(VOLUME, name=aside_name(Aside.BASE), tags=OURS | {"hearth_base=abc.raw"})
    assert base_of(image, "here", [VOLUME, base]) == base
    assert base_of(image, "elsewhere", [base]) is None
    assert base_of(replace(image, format="qcow2"), "here", [base]) is None
    assert base_of(image, "here", [replace(base, name=aside_name(Aside.NEW))]) is None


def test_the_only_pool_is_taken_and_of_several_the_named_one() -> None:
    other = replace(POOL, name="other")
    assert choose_pool(ThinChoice(), [VOLUME]) is None
    assert choose_pool(ThinChoice(), [VOLUME, POOL]) == POOL
    assert choose_pool(ThinChoice(pool=THICK), [POOL]) is None
    assert choose_pool(ThinChoice(pool="other"), [POOL, other]) == other
    for choice, words in ((ThinChoice(), "other, thin"), (ThinChoice(pool="golden"), "no thin pool")):
        with pytest.raises(HostUnfit, match=words):
            choose_pool(choice, [VOLUME, POOL, other])


def test_a_pool_that_gives_blocks_with_others_bytes_is_refused() -> None:
    with pytest.raises(HostUnfit, match="zero"):
        choose_pool(ThinChoice(), [replace(POOL, attributes="twi-aot---")])


@pytest.mark.parametrize(
    ("data_percent", "metadata_percent", "attributes", "promised_mib", "need_mib", "words"),
    [
        (50.0, 10.0, THIN_POOL, 0, 40, None),
        (50.0, 10.0, THIN_POOL, 0, 41, "41 MiB more, beside 50 MiB"),
        (50.0, 10.0, THIN_POOL, 30, 11, "30 MiB promised"),
        (50.0, 10.0, THIN_POOL, 30, 10, None),
        (90.0, 80.0, THIN_POOL, 0, 0, None),
        (91.0, 10.0, THIN_POOL, 0, 0, "90 %"),
        (1.0, 80.1, THIN_POOL, 0, 0, "metadata are 80.1 % full"),
        (1.0, 1.0, "twi-aotzD-", 0, 0, "health 'D'"),
    ],
)
def test_nothing_is_let_in_that_could_fill_the_pool(
    data_percent: float, metadata_percent: float, attributes: str, promised_mib: int, need_mib: int, words: str | None
) -> None:
    pool = replace(POOL, data_percent=data_percent, metadata_percent=metadata_percent, attributes=attributes)
    tags = OURS | {f"hearth_need={(promised_mib + 10) * MIB}"}
    making = replace(VOLUME, name=aside_name(Aside.NEW), pool="thin", tags=tags, data_percent=10.0)
    finished = replace(making, name="golden")
    volumes = [pool, finished, *([making] if promised_mib else []), replace(making, pool="another")]
    if words is None:
        admit(ThinChoice(), pool, volumes, need_mib * MIB)
        return
    with pytest.raises(NoSpace, match=words):
        admit(ThinChoice(), pool, volumes, need_mib * MIB)
