"""Jobs that end in images: what they hold while they are under way, and when it is free again."""

from __future__ import annotations

import asyncio

from tests.control.conftest import House

from hearth.control.image_jobs import JOBS_PER_USER
from hearth.control.image_work import Destination, ImageWork, OnStage
from hearth.errors import EngineFailed
from hearth.image.store import Image
from hearth.jobs.plan import Plan, Step
from hearth.model import JobState

WAIT_S = 60.0
GIVEN = ImageWork(name="app", source="a test")


class Light:
    """Work that is over at once: it makes no image."""

    image: Image | None = None

    def __init__(self, to: Destination, on_stage: OnStage) -> None:
        """Whatever the image would be."""

    def plan(self) -> Plan[ImageWork]:
        step = Step(name="only", do=self._do, undo=self._undo)
        return Plan(kind="image.light", input_type=ImageWork, steps=[step])

    async def _do(self, _: ImageWork) -> None:
        """There is nothing to do."""

    async def _undo(self, _: ImageWork) -> None:
        """Nor to undo."""


class Failing(Light):
    """Work that fails at once."""

    async def _do(self, _: ImageWork) -> None:
        raise EngineFailed("it burns")


async def test_a_name_and_a_place_are_free_as_soon_as_a_jobs_row_tells_its_end(house: House) -> None:
    jobs, store = house.daemon.image_jobs, house.sandboxes.store
    for work, end in [(Light, JobState.COMPLETED), (Failing, JobState.FAILED)] * JOBS_PER_USER:
        job = await jobs.begin(house.admin, work, GIVEN)
        async with asyncio.timeout(WAIT_S):
            while not (now := (await store.jobs.get(job.id)).state).is_final:
                await asyncio.sleep(0)
        assert now is end
