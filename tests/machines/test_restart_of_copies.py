"""What the next daemon makes of copies and checkpoints: what they lie over stays, what was half made goes."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from tests.machines.sleepers import VmHouse, opened, start_threads, until

from hearth.config import DataDirectory
from hearth.engine.snapshot import stage
from hearth.model import Heat, SandboxState, SnapshotState

pytestmark = pytest.mark.slow


async def make_family(house: VmHouse) -> None:
    """A copy that runs, one that sleeps, a checkpoint; no source any more; and what a crash would leave."""
    source = await house.create("source")
    await house.mark(source, "kept")
    await house.sandboxes.fork(house.admin, "source", name="copy", count=2)
    await house.sandboxes.stop(house.admin, "copy-2")
    made = await house.daemon.checkpoints.create(house.admin, "copy-1", "made")
    await house.sandboxes.destroy(house.admin, source.id)

    await asyncio.to_thread(stage, house.data.snapshot("fork-0000000torn0"))
    half = replace(made, id="ckp-0000000half0", name="half", state=SnapshotState.CREATING)
    await house.sandboxes.store.snapshots.create(half)
    final = house.data.snapshot("fork-000000lost00")
    copy = await house.sandboxes.get(house.admin, "copy-1")
    with house.sandboxes.shelf.pin(final.name):
        await house.sandboxes.forks.capture(copy, final)
        await house.sandboxes.shelf.close()  # so that nothing sweeps it any more


async def test_the_next_daemon_keeps_what_copies_and_checkpoints_need_and_nothing_else(slept_in: DataDirectory) -> None:
    await start_threads()
    async with opened(slept_in) as house:
        await make_family(house)
        before = {path.name for path in house.data.snapshots.iterdir()}

    async with opened(slept_in) as house:
        after = {path.name for path in house.data.snapshots.iterdir()}
        assert sorted(name.split(".")[0] for name in before - after) == ["fork-0000000torn0", "fork-000000lost00"]
        rows = (await house.daemon.checkpoints.list(house.admin)).items
        assert [(row.name, row.state) for row in rows] == [("made", SnapshotState.READY)]

        running, sleeping = [await house.sandboxes.get(house.admin, name) for name in ("copy-1", "copy-2")]
        assert (house.heat(running), sleeping.state) == (Heat.HOT, SandboxState.STOPPED)
        (resumed,) = await house.daemon.checkpoints.resume(house.admin, "made", sandbox_name="resumed")
        for each in (running, sleeping, resumed):
            assert await house.marks(each) == ("kept", "kept")

        (grandchild,) = await house.sandboxes.fork(house.admin, "copy-1", name="grandchild")
        assert await house.marks(grandchild) == ("kept", "kept")
        await house.daemon.checkpoints.delete(house.admin, "made")
        await house.destroy_all()
        await until(lambda: _only_templates(house), "everything is gone but templates")


def _only_templates(house: VmHouse) -> bool:
    return all(path.name.startswith("tpl-") for path in house.data.snapshots.iterdir())
