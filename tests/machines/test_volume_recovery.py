"""Daemons killed while they work on volumes of real machines: the next one finds each attached whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from tests.machines import doomed_volumes
from tests.machines.sleepers import QUIET, VmHouse, opened, start_threads, traces_of, until
from tests.machines.test_first_light import vmms_of

from hearth.config import DataDirectory
from hearth.control.creation import Extras
from hearth.control.volumes import NewVolume, WantedVolumes
from hearth.errors import NotFound
from hearth.model import Sandbox, SandboxSpec, VolumeState
from hearth.volume.base import VolumeInUse
from hearth.volume.mounting import VolumeRequest

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow, pytest.mark.timeout(900)]

DATA = VolumeRequest(name="data", mount=doomed_volumes.MOUNT)
DOOMED_S = 240.0
STAYS = ("plug", "mount", "unmount")
"""After these the machine has the volume, and so it is."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def data(slept_in: DataDirectory) -> AsyncIterator[DataDirectory]:
    await start_threads()
    yield slept_in
    async with opened(slept_in) as house:
        await house.destroy_all()
        for volume in (await house.daemon.volumes.list(house.admin)).items:
            await house.daemon.volumes.delete(house.admin, volume.volume.id)


async def test_a_daemon_killed_while_it_attaches_or_detaches_leaves_no_half(data: DataDirectory) -> None:
    async with opened(data) as house:
        await house.daemon.volumes.create(house.admin, "data", 16)
        sandbox, other = await house.create("one"), await house.create("other")
        machine = vmms_of(sandbox.id)
    for work, steps in (("attach", doomed_volumes.ATTACH), ("detach", doomed_volumes.DETACH)):
        for step in steps:
            if work == "detach":
                async with opened(data) as house:
                    await house.daemon.attaching.attach(house.admin, sandbox.id, DATA)
            _killed(data, sandbox.id, work, step)
            async with opened(data) as house:
                await _check(house, sandbox, other, step)
                assert vmms_of(sandbox.id) == machine, "the machine ran on"
    async with opened(data) as house:
        await house.destroy_all()
        assert (await house.daemon.volumes.inspect(house.admin, "data")).placed == []
        await house.daemon.volumes.delete(house.admin, "data")
    assert traces_of(data, sandbox.id) == []


async def _check(house: VmHouse, sandbox: Sandbox, other: Sandbox, step: str) -> None:
    """See that row, record and VMM agree, that nobody else gets what is attached, and leave it detached."""
    volumes, attaching, admin = house.daemon.volumes, house.daemon.attaching, house.admin
    report = await volumes.inspect(admin, "data")
    holders = house.sandboxes.workshop.volumes.attachments.holders(report.volume.id)
    attached = [sandbox.id] if step in STAYS else []
    assert [placed.placement.sandbox_id for placed in report.placed] == attached, step
    assert [holder.machine for holder in holders] == attached, step
    if attached:
        with pytest.raises(VolumeInUse):
            await attaching.attach(admin, other.id, DATA)
    else:
        await attaching.attach(admin, other.id, DATA)
        await attaching.detach(admin, other.id, "data")
    await attaching.attach(admin, sandbox.id, DATA)
    await house.shell(sandbox, f"echo '{step}' > {DATA.mount}/note && sync {DATA.mount}/note")
    await attaching.detach(admin, sandbox.id, "data")


async def test_a_daemon_killed_while_it_creates_a_sandbox_leaves_it_with_its_volume_or_neither(
    data: DataDirectory,
) -> None:
    for step in doomed_volumes.CREATE:
        _killed(data, "", "create", step)
        async with opened(data) as house:
            if step != "sandbox's row":
                for missing in (
                    house.sandboxes.get(house.admin, "made"),
                    house.daemon.volumes.get(house.admin, "data"),
                ):
                    with pytest.raises(NotFound):
                        await missing
                assert list((data.volumes / "disks").iterdir()) == [], step
                continue
            made = await house.sandboxes.get(house.admin, "made")
            assert (await house.daemon.volumes.get(house.admin, "data")).state is VolumeState.READY
            await house.shell(made, f"touch {DATA.mount}/note")
            await house.sandboxes.destroy(house.admin, made.id)
            await house.daemon.volumes.delete(house.admin, "data")


def _killed(data: DataDirectory, sandbox_id: str, work: str, step: str) -> None:
    argv = [sys.executable, "-m", "tests.machines.doomed_volumes", str(data.root), sandbox_id, work, step]
    done = subprocess.run(argv, cwd=Path(__file__).parents[2], timeout=DOOMED_S, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, f"{step}: {done.returncode}: {done.stderr.decode()[-2000:]}"


async def test_a_machine_made_ahead_gets_volumes_like_any_other(data: DataDirectory) -> None:
    async with opened(data, replace(QUIET, pool_ready=1)) as house:
        await house.daemon.volumes.create(house.admin, "read", 16)
        await house.create("first")
        await until(lambda: house.sandboxes.pool.sizes()["ready"] == 1, "a clone is made ahead")
        wanted = WantedVolumes(
            existing=[VolumeRequest(name="read", mount="/srv/read", read_only=True)],
            new=[NewVolume(name="written", size_mib=16, mount="/srv/written")],
        )
        made = (
            await house.sandboxes.create(house.admin, SandboxSpec(name="made"), extras=Extras(volumes=wanted))
        ).sandbox
        assert house.sandboxes.pool.hits["ready"] == 1
        assert await house.shell(made, "touch /srv/written/note && ls /srv/read") == "lost+found"
        await house.stop(made)
        assert "note" in await house.shell(made, "ls /srv/written")
        await house.destroy_all()
