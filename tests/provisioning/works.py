"""A provisioner in this process, with its jobs, its cache and its volumes of users: all of a daemon but HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.control.test_volumes import ADA, BOB, ROOT, Cellar

from hearth.config import DataDirectory, ProvisioningSettings
from hearth.control.events import Events
from hearth.control.provisioning.links import Links
from hearth.control.provisioning.making import make_provisioner
from hearth.control.provisioning.order import ProvisionOrder
from hearth.control.provisioning.provisioner import Provisioner
from hearth.control.reporting import Reporter
from hearth.control.users import Users
from hearth.control.vault import Vault
from hearth.host.directory import load_host_id
from hearth.jobs.runner import Runner
from hearth.model import Job

WAIT_S = 200.0
LOOK_EVERY_S = 0.05


class Works(Cellar):
    """Fills volumes, and gives them to users."""

    provisioner: Provisioner
    links: Links

    async def open(self, root: Path, settings: ProvisioningSettings, reporter: Reporter | None = None) -> None:
        """Put it together."""
        data = DataDirectory(root=root)
        load_host_id(data)
        users = Users(self.store, self.clock, Vault(root / "master.key", self.store.secrets))
        self.links = Links(
            store=self.store,
            users=users,
            volumes=self.volumes,
            machines=self.machines,
            links=self.backend,
            clock=self.clock,
        )
        reporter = reporter or Reporter(Events(self.clock, run="run"))
        self.provisioner = await make_provisioner(
            data=data,
            settings=settings,
            jobs=self.store.jobs,
            runner=Runner(self.store.jobs, clock=self.clock, owner="run", observer=reporter.step),
            reporter=reporter,
            clock=self.clock,
            host="here",
            links=self.links,
        )
        for user in (ADA, BOB, ROOT):
            await self.store.users.create(user)

    async def ended(self, order: ProvisionOrder) -> Job:
        """Order a volume and wait for the end of its job."""
        job = await self.provisioner.submit(ROOT, order)
        async with asyncio.timeout(WAIT_S):
            while not job.state.is_final:
                await asyncio.sleep(LOOK_EVERY_S)
                job = await self.store.jobs.get(job.id)
        return job


@contextlib.asynccontextmanager
async def running_works(
    root: Path, settings: ProvisioningSettings, reporter: Reporter | None = None
) -> AsyncIterator[Works]:
    """Give one that does what is ordered."""
    works = Works(root)
    await works.open(root, settings, reporter)
    running = asyncio.create_task(works.provisioner.run())
    try:
        yield works
    finally:
        running.cancel()
        await asyncio.wait([running])
