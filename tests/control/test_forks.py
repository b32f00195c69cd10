"""Names and shapes of copies; and what is said where machines cannot be copied, or not made to sleep, at all."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.control.conftest import House

from hearth.bounds import MAX_COPIES
from hearth.control.forks import CopiesFailed, inherit, specs_of_copies
from hearth.errors import Code, Conflict, HearthError, InvalidInput, NoSpace, NotFound
from hearth.model import Heat, Lifetime, SandboxChanges, SandboxSpec, User, check_name
from hearth.store.base import SandboxExists

SOURCE = SandboxSpec(name="web", image="python", cpus=2, memory_mib=512, env={"A": "1", "B": "2"}, labels={"app": "x"})
STRANGER = User(id="user-stranger", name="stranger")


@pytest.mark.parametrize(
    ("name", "count", "expected"),
    [
        ("copy", 1, ["copy"]),
        ("copy", 2, ["copy-1", "copy-2"]),
        ("x" * 60, 2, ["x" * 60 + "-1", "x" * 60 + "-2"]),
    ],
)
def test_copies_are_named_as_asked(name: str, count: int, expected: list[str]) -> None:
    specs = specs_of_copies(SOURCE, base="web-fork", name=name, count=count)
    assert [spec.name for spec in specs] == expected
    assert {replace(spec, name="web") for spec in map(_plain, specs)} == {_plain(SOURCE)}


def _plain(spec: SandboxSpec) -> SandboxSpec:
    """Give a spec that can be put into a set."""
    return replace(spec, env=(), labels=())  # type: ignore[arg-type]


@pytest.mark.parametrize("base", ["web-fork", "x" * 63, "x" * 50 + "-" * 8 + "-fork"])
@pytest.mark.parametrize("count", [1, MAX_COPIES])
def test_copies_without_a_name_get_one_that_is_acceptable_and_their_own(base: str, count: int) -> None:
    names = [spec.name for spec in specs_of_copies(SOURCE, base=base, name=None, count=count)]
    assert len(set(names)) == count
    assert all(check_name(name) and name.startswith(base[:40].rstrip("-")) for name in names)
    assert names != [spec.name for spec in specs_of_copies(SOURCE, base=base, name=None, count=count)]


@pytest.mark.parametrize(
    ("name", "count", "field"),
    [
        ("copy", 0, "count"),
        ("copy", MAX_COPIES + 1, "count"),
        ("copy", -1, "count"),
        ("No Name", 1, "name"),
        ("x" * 62, 2, "name"),
        ("", 1, "name"),
    ],
)
def test_a_bad_name_or_number_of_copies_is_refused_by_its_field(name: str, count: int, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        specs_of_copies(SOURCE, base="web", name=name, count=count)
    assert caught.value.field == field


def test_a_copy_takes_image_and_shape_from_its_source_and_adds_to_its_environment() -> None:
    found = inherit(SandboxSpec(name="copy", env={"B": "3"}, labels={"mine": "yes"}, ttl_s=60), SOURCE)
    assert found == SandboxSpec(
        name="copy",
        image="python",
        cpus=2,
        memory_mib=512,
        env={"A": "1", "B": "3"},
        labels={"mine": "yes"},
        ttl_s=60,
    )
    assert inherit(SandboxSpec(name="copy", image="python", cpus=2, memory_mib=512), SOURCE).cpus == 2


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (SandboxSpec(name="copy", cpus=4), "cpus"),
        (SandboxSpec(name="copy", memory_mib=1024), "memory_mb"),
        (SandboxSpec(name="copy", image="ruby"), "image"),
    ],
)
def test_a_copy_of_another_shape_is_refused_by_the_field(spec: SandboxSpec, field: str) -> None:
    with pytest.raises(Conflict) as caught:
        inherit(spec, SOURCE)
    assert caught.value.field == field


async def test_the_error_of_some_copies_tells_which_were_made_and_has_the_first_failures_code(house: House) -> None:
    made = (await house.sandboxes.create(house.admin, SandboxSpec(name="web-1"))).sandbox
    failures: dict[str, HearthError] = {
        "web-2": NoSpace("the disk is full", resolution="free some"),
        "web-3": Conflict("x"),
    }
    error = CopiesFailed([made], failures)
    assert error.code is Code.NO_SPACE
    assert error.brief == "2 of 3 copies failed"
    assert "made: web-1" in error.details
    assert "web-2: the disk is full" in error.details
    assert error.resolution == "free some"
    assert list(error.made) == [made]


async def test_where_machines_do_not_sleep_every_use_of_that_says_so(house: House) -> None:
    sandboxes, admin = house.sandboxes, house.admin
    await sandboxes.create(admin, SandboxSpec(name="dev"))
    for refused in (
        sandboxes.stop(admin, "dev"),
        sandboxes.pause(admin, "dev"),
        sandboxes.resume(admin, "dev"),
        sandboxes.fork(admin, "dev"),
        sandboxes.save_image(admin, "dev", "mine"),
        sandboxes.checkpoints.create(admin, "dev", "one"),
        sandboxes.create(admin, SandboxSpec(name="copy"), from_="dev"),
        sandboxes.machine_templates.warm(admin, "debian", cpus=1, memory_mib=256),
    ):
        with pytest.raises(Conflict, match="do not sleep"):
            await refused
    assert await house.output("dev", "/bin/echo", "unharmed") == (b"unharmed\n", 0)
    assert list(house.data.snapshots.iterdir()) == []
    assert (await sandboxes.checkpoints.list(admin)).items == []


async def test_strangers_are_told_that_there_is_no_such_sandbox_whatever_they_want_of_it(house: House) -> None:
    sandboxes = house.sandboxes
    await sandboxes.create(house.admin, SandboxSpec(name="dev"))
    for refused in (
        sandboxes.stop(STRANGER, "dev"),
        sandboxes.start(STRANGER, "dev"),
        sandboxes.pause(STRANGER, "dev"),
        sandboxes.resume(STRANGER, "dev"),
        sandboxes.fork(STRANGER, "dev"),
        sandboxes.save_image(STRANGER, "dev", "mine"),
        sandboxes.update(STRANGER, "dev", SandboxChanges(keep_hot=True)),
        sandboxes.checkpoints.get(STRANGER, "one"),
        sandboxes.checkpoints.delete(STRANGER, "one"),
        sandboxes.checkpoints.resume(STRANGER, "one"),
    ):
        with pytest.raises(NotFound):
            await refused


async def test_starting_what_runs_is_fine_everywhere(house: House) -> None:
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    assert await house.sandboxes.start(house.admin, "dev") == created.sandbox
    assert house.sandboxes.heat(created.sandbox) is Heat.HOT


async def test_a_sandbox_is_changed_in_all_that_was_said_and_nothing_else(house: House) -> None:
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="dev", labels={"a": "1", "b": "2"}))
    before = house.sandboxes.workshop.clock.now()
    changes = SandboxChanges(
        name="web", keep_hot=True, labels_add={"c": "3"}, labels_remove=["a"], lifetime=Lifetime(ttl_s=60)
    )
    changed = await house.sandboxes.update(house.admin, "dev", changes)
    after = house.sandboxes.workshop.clock.now()

    assert changed.id == created.sandbox.id
    assert changed.spec == replace(
        created.sandbox.spec, name="web", keep_hot=True, labels={"b": "2", "c": "3"}, ttl_s=60
    )
    assert changed.expires_at is not None
    assert before <= changed.expires_at - timedelta(seconds=60) <= after
    endless = await house.sandboxes.update(house.admin, "web", SandboxChanges(lifetime=Lifetime()))
    assert (endless.expires_at, endless.spec.ttl_s) == (None, None)
    assert endless.spec.labels == changed.spec.labels


async def test_a_change_that_is_not_acceptable_changes_nothing(house: House) -> None:
    await house.sandboxes.create(house.admin, SandboxSpec(name="dev"))
    await house.sandboxes.create(house.admin, SandboxSpec(name="taken"))
    for changes, field in (
        (SandboxChanges(name="No Name"), "name"),
        (SandboxChanges(labels_add={"": "x"}), "labels"),
        (SandboxChanges(labels_add={str(number): "" for number in range(100)}), "labels"),
    ):
        with pytest.raises(InvalidInput) as caught:
            await house.sandboxes.update(house.admin, "dev", replace(changes, keep_hot=True))
        assert caught.value.field == field
    with pytest.raises(SandboxExists):
        await house.sandboxes.update(house.admin, "dev", SandboxChanges(name="taken", keep_hot=True))
    assert not (await house.sandboxes.get(house.admin, "dev")).spec.keep_hot
