"""A cancellation that comes when the volume has its name already: what it replaced is gone, so the job is done."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest
from tests.control.test_volumes import ROOT
from tests.provisioning.works import Works

from hearth.config import ProvisioningSettings
from hearth.control.events import Events
from hearth.control.provisioning.making import golden_settings
from hearth.control.provisioning.order import ProvisionOrder
from hearth.control.provisioning.pools import Pools
from hearth.control.provisioning.work import ProvisionWork, Tools
from hearth.control.reporting import Reporter
from hearth.errors import NotFound
from hearth.jobs.runner import Runner
from hearth.model import JobState
from hearth.volume.golden.base import GoldenVolume, Target
from hearth.volume.golden.file import FileGoldenVolumes

MIB = 1 << 20
WAIT_S = 60.0


class Slow(FileGoldenVolumes):
    """Takes its time before or after the one step that counts."""

    def __init__(self, root: Path, *, is_late: bool) -> None:
        super().__init__(root)
        self.is_late, self.reached = is_late, asyncio.Event()

    async def publish(self, target: Target, *, replace: bool = False) -> GoldenVolume:
        if self.is_late:
            await super().publish(target, replace=replace)
        self.reached.set()
        await asyncio.sleep(WAIT_S)
        raise AssertionError("nobody cancelled it")


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_job_is_cancelled_until_its_volume_has_its_name_and_completed_from_then_on(
    tmp_path: Path, is_late: bool
) -> None:
    image = tmp_path / "image.raw"
    image.write_bytes(b"golden" * 1000)
    settings = ProvisioningSettings(image_directories=(tmp_path,))
    works = Works(tmp_path / "data")
    await works.open(tmp_path / "data", settings)
    volumes = Slow(tmp_path / "slow", is_late=is_late)
    volumes.prepare()
    runner = Runner(works.store.jobs, clock=works.clock, owner="run")
    tools = Tools(
        settings=golden_settings(settings),
        cache=works.provisioner.cache,
        pools=Pools({"file": volumes}, state=tmp_path / "state"),
        reporter=Reporter(Events(works.clock, run="run")),
        jobs=set_of_none,
        note=runner.note,
        host="here",
        links=works.links,
    )
    order = ProvisionOrder(
        image_url=f"file://{image}", image_type="raw", volume_name="vm", size_bytes=MIB, pool="file", owner=ROOT.id
    )
    job = await runner.submit(ProvisionWork(tools, "").plan(), "vm", order)
    work = ProvisionWork(tools, job.id)
    running = asyncio.create_task(runner.run(job.id, work.plan()))
    async with asyncio.timeout(WAIT_S):
        await volumes.reached.wait()
        running.cancel()
        await asyncio.wait([running])
    work.close()
    job = await works.store.jobs.get(job.id)
    if is_late:
        assert (job.state, job.error) == (JobState.COMPLETED, None)
        volume = await volumes.describe("vm")
        assert (volume.job, str(volume.path)) == (job.id, (job.result or {})["volume_path"])
        assert volume.image == hashlib.sha256(b"golden" * 1000).hexdigest()
    else:
        assert job.state is JobState.CANCELLED
        with pytest.raises(NotFound):
            await volumes.describe("vm")
        assert list((tmp_path / "slow" / "volumes").iterdir()) == []


async def set_of_none() -> set[str]:
    return set()
