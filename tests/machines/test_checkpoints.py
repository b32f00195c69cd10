"""Checkpoints and saved images of real machines, and templates as an administrator handles them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.boot import copy_images
from tests.machines.sleepers import VmHouse, opened, start_threads, until
from tests.server.daemon import data_directory

from hearth.errors import Conflict, InvalidInput, NotFound
from hearth.image.store import Image
from hearth.model import Sandbox, SandboxSpec, SandboxState, SnapshotState, User
from hearth.store.base import SandboxExists

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

STRANGER = User(id="user-stranger", name="stranger")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(images: None) -> AsyncIterator[VmHouse]:
    """A house with images of its own, for some are made here."""
    await start_threads()
    with data_directory() as data:
        await asyncio.to_thread(copy_images, data)
        async with opened(data) as house:
            async with house.sandbox("first"):
                """The template is in memory from here on."""
            yield house
            await house.destroy_all()


def names(house: VmHouse) -> list[str]:
    return sorted(path.name for path in house.data.snapshots.iterdir())


async def destroy(house: VmHouse, *sandboxes: Sandbox) -> None:
    await asyncio.gather(*(house.sandboxes.destroy(house.admin, each.id) for each in sandboxes))


async def test_two_checkpoints_resume_twice_each_at_once_after_their_source_is_gone(house: VmHouse) -> None:
    checkpoints = house.daemon.checkpoints
    async with house.sandbox("web", env={"COLOUR": "green"}) as source:
        taken = []
        for word in ("one", "two"):
            await house.mark(source, word)
            taken.append(await checkpoints.create(house.admin, "web", word))
        assert [each.state for each in taken] == [SnapshotState.READY] * 2
        assert all(each.size_bytes > 0 and each.sandbox_name == "web" for each in taken)
        with pytest.raises(Conflict):
            await checkpoints.create(house.admin, "web", "one")
        assert await house.marks(source) == ("two", "two")

    resumed = await asyncio.gather(
        checkpoints.resume(house.admin, "one", count=2),
        checkpoints.resume(house.admin, taken[1].id, sandbox_name="second", count=2),
    )
    copies = [copy for some in resumed for copy in some]
    try:
        for word, some in zip(("one", "two"), resumed, strict=True):
            for copy in some:
                assert await house.marks(copy) == (word, word)
                assert await house.output(copy.id, "/bin/sh", "-c", "echo $COLOUR") == (b"green\n", 0)
        assert [copy.spec.name for copy in resumed[1]] == ["second-1", "second-2"]
        assert [copy.parent for copy in copies] == [taken[0].id] * 2 + [taken[1].id] * 2
        machine_ids = [await house.shell(copy, "cat /etc/machine-id") for copy in copies]
        assert len(set(machine_ids)) == len(copies)
    finally:
        await destroy(house, *copies)
    for each in taken:
        await checkpoints.delete(house.admin, each.id)
    assert (await checkpoints.list(house.admin)).items == []
    await until(lambda: all(name.startswith("tpl-") for name in names(house)), "the checkpoints' files are gone")


async def test_a_deleted_checkpoint_stays_as_long_as_copies_run_sleep_or_lie_below_others(house: VmHouse) -> None:
    checkpoints = house.daemon.checkpoints
    async with house.sandbox("web") as source:
        await house.mark(source, "root")
        root = await checkpoints.create(house.admin, "web", "root")
    created = await house.sandboxes.create(house.admin, SandboxSpec(name="copy"), from_="root")
    copy = created.sandbox
    try:
        await house.mark(copy, "leaf")
        leaf = await checkpoints.create(house.admin, "copy", "leaf")
        (grandchild,) = await house.sandboxes.fork(house.admin, "copy", name="grandchild")
        below = await checkpoints.create(house.admin, "grandchild", "below")
        assert (leaf.parent, below.parent) == (root.id, root.id)
        await destroy(house, grandchild)

        await checkpoints.delete(house.admin, "root")
        with pytest.raises(NotFound):
            await checkpoints.get(house.admin, "root")
        with pytest.raises(Conflict, match="not ready"):
            await checkpoints.resume(house.admin, root.id)
        assert (await checkpoints.get(house.admin, root.id)).state is SnapshotState.DELETING
        await house.sandboxes.stop(house.admin, "copy")
        await checkpoints.delete(house.admin, root.id)
        assert await house.marks(copy) == ("leaf", "leaf"), "it wakes over what was deleted"
    finally:
        await destroy(house, copy)

    (again,) = await checkpoints.resume(house.admin, "leaf", sandbox_name="again")
    assert await house.marks(again) == ("leaf", "leaf")
    await destroy(house, again)
    await checkpoints.delete(house.admin, "leaf")
    await checkpoints.delete(house.admin, "below")
    assert (await checkpoints.list(house.admin)).items == []
    await until(lambda: all(name.startswith("tpl-") for name in names(house)), "the checkpoints' files are gone")


async def test_who_comes_for_a_checkpoint_while_it_goes_is_told_that_it_is_gone(house: VmHouse) -> None:
    checkpoints, shelf = house.daemon.checkpoints, house.sandboxes.shelf
    async with house.sandbox("web"):
        taken = await checkpoints.create(house.admin, "web", "going")
        comes, gone = asyncio.Event(), asyncio.Event()

        async def go() -> None:
            await comes.wait()
            await checkpoints.delete(house.admin, taken.id)
            gone.set()

        going = asyncio.create_task(go())
        hold = shelf.hold

        @contextlib.asynccontextmanager
        async def late(snapshot_id: str) -> AsyncIterator[None]:
            """As if it were going at this moment: it was found, and is waited for."""
            comes.set()
            await gone.wait()
            async with hold(snapshot_id):
                yield

        shelf.hold = late  # type: ignore[method-assign]
        try:
            with pytest.raises(NotFound):
                await checkpoints.resume(house.admin, "going")
        finally:
            del shelf.hold
            await going


async def test_what_is_wrong_with_a_checkpoint_is_said_and_leaves_nothing(house: VmHouse) -> None:
    checkpoints = house.daemon.checkpoints
    async with house.sandbox("web") as source:
        before = names(house)
        with pytest.raises(InvalidInput) as caught:
            await checkpoints.create(house.admin, "web", "No Name")
        assert caught.value.field == "name"
        with pytest.raises(NotFound):
            await checkpoints.create(STRANGER, "web", "one")
        with pytest.raises(NotFound) as missing:
            await house.sandboxes.create(house.admin, SandboxSpec(name="copy"), from_="no-such")
        assert missing.value.field == "from"

        fill = "fallocate -l $(( $(df --output=avail -B1 /var/tmp | tail -1) * 97 / 100 )) /var/tmp/fill && sync"
        await house.shell(source, fill)
        with pytest.raises(Conflict, match="too full"):
            await checkpoints.create(house.admin, "web", "one")
        assert names(house) == before
        assert (await checkpoints.list(house.admin)).items == []
        await house.shell(source, "rm /var/tmp/fill")

        made = await checkpoints.create(house.admin, "web", "one")
        with pytest.raises(SandboxExists):
            await checkpoints.resume(house.admin, "one", sandbox_name="web")
        with pytest.raises(NotFound):
            await checkpoints.resume(STRANGER, "one")
        await checkpoints.delete(house.admin, made.name)


async def test_a_saved_disk_is_an_image_that_others_are_created_of(house: VmHouse) -> None:
    async with house.sandbox("web") as source:
        await house.mark(source, "running")
        hot = await house.sandboxes.save_image(house.admin, "web", "of-running")
        assert await house.marks(source) == ("running", "running")
        assert await house.shell(source, "sha256sum < /dev/null | head -c 8") == "e3b0c442"
        await house.mark(source, "stopped")
        await house.sandboxes.stop(house.admin, "web")
        cold = await house.sandboxes.save_image(house.admin, "web", "of-stopped")
        assert (await house.look(source)).state is SandboxState.STOPPED, "it is not woken"
        assert await house.marks(source) == ("stopped", "stopped")
        identity = await house.shell(source, "cat /etc/machine-id")

    assert hot.id != cold.id
    assert hot.facts["from"] == "web"
    with pytest.raises(Conflict):
        async with house.sandbox("web"):
            await house.sandboxes.save_image(house.admin, "web", "kernel")
    async with house.sandbox("new", image="of-stopped") as new:
        assert await house.marks(new) == ("-", "stopped")
        assert await house.shell(new, "hostname") == "new"
        assert await house.shell(new, "cat /etc/machine-id") != identity
    await until(lambda: all(name.startswith("tpl-") for name in names(house)), "what was captured is gone")
    (template,) = [each for each in await house.daemon.templates.list() if each.image == "of-stopped"]
    await house.daemon.templates.delete(template.id)


async def test_of_two_who_save_under_one_name_at_once_one_gets_it_and_the_other_is_told(house: VmHouse) -> None:
    stranger, _ = await house.daemon.users.create(house.admin, "carol")
    async with house.sandbox("web") as ours:
        theirs = (await house.sandboxes.create(stranger, SandboxSpec(name="web"))).sandbox
        try:
            tried = await asyncio.gather(
                house.sandboxes.save_image(house.admin, ours.id, "wanted"),
                house.sandboxes.save_image(house.admin, theirs.id, "wanted"),
                return_exceptions=True,
            )
            (refused,) = [each for each in tried if isinstance(each, BaseException)]
            (image,) = [each for each in tried if isinstance(each, Image)]
            assert isinstance(refused, Conflict)
            assert refused.field == "name"
            found = await house.daemon.images.describe("wanted", owner=house.admin.id)
            assert found is not None
            assert found.id == image.id
        finally:
            await house.sandboxes.destroy(house.admin, theirs.id)


async def test_a_template_is_listed_counted_kept_while_needed_and_dropped(house: VmHouse) -> None:
    templates = house.daemon.templates
    warmed = await templates.warm(house.admin, "debian", cpus=1, memory_mib=256)
    async with house.sandbox("web"):
        (listed,) = [each for each in await templates.list() if each.id == warmed.id]
        assert (listed.image, listed.cpus, listed.memory_mib, listed.uses) == ("debian", 1, 256, 1)
        assert listed.size_bytes > 0
        assert not listed.is_stale
        with pytest.raises(Conflict, match="sandbox web") as caught:
            await templates.delete(warmed.id)
        assert "destroy" in caught.value.resolution
    await templates.delete(warmed.id)
    assert warmed.id not in names(house)
    with pytest.raises(NotFound):
        await templates.delete(warmed.id)
