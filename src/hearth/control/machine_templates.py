"""Templates as users see them: list, make one ahead, drop one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from hearth.control.eviction import MachineTemplate
from hearth.control.images import Images
from hearth.control.limits import HostLimits, check_spec
from hearth.control.pool import Pool
from hearth.control.shelf import Shelf
from hearth.control.space import require_space
from hearth.control.templates import PREFIX, Shape, Templates
from hearth.errors import Conflict, NotFound
from hearth.jobs.bringup import Workshop, sleeping
from hearth.model import SandboxSpec, User

FORSAKE_TIMEOUT_S = 30.0
"""Making one clone, which a pool does not interrupt, takes a few seconds on a busy host."""

log = structlog.get_logger(__name__)


class MachineTemplates:
    """Use cases of templates. They belong to the host: every user may have one made, and administrators drop one."""

    def __init__(
        self,
        *,
        workshop: Workshop,
        images: Images,
        templates: Templates,
        pool: Pool,
        shelf: Shelf,
        limits: HostLimits,
    ) -> None:
        self._workshop = workshop
        self._images = images
        self._templates = templates
        self._pool = pool
        self._shelf = shelf
        self._limits = limits

    async def list(self) -> Sequence[MachineTemplate]:
        """Give all templates, the oldest first."""
        return await self._shelf.templates()

    async def warm(self, user: User, image: str, *, cpus: int, memory_mib: int) -> MachineTemplate:
        """Make the template of a shape unless there is one; about one boot.

        Raises:
            InvalidInput: names the field.
            NotFound: no such image.
            Conflict: this engine's machines do not sleep.
            NoSpace, EngineFailed, GuestFailed, TimedOut: it could not be made; nothing is left of it.
        """
        check_spec(SandboxSpec(name="template", image=image, cpus=cpus, memory_mib=memory_mib), self._limits)
        sleeping(self._workshop.engine)
        boot = await self._images.choose(user, image)
        await require_space(self._workshop, self._shelf)
        shape = Shape(boot=boot, cpus=cpus, memory_mib=memory_mib)
        async with self._shelf.hold(await self._templates.identify(shape)):
            template_id = await self._templates.ensure(shape)
            log.info("template warmed", template=template_id)
            return await self._get(template_id)

    async def delete(self, template_id: str) -> None:
        """Delete a template that nobody needs.

        Raises:
            NotFound: no such template.
            Conflict: sandboxes or checkpoints lie over it; ``details`` name them.
        """
        template = await self._get(template_id)
        if needed_by := await self._shelf.needed_by(template.id):
            raise Conflict(
                "the template is needed",
                details=f"{template.id} lies below {', '.join(needed_by)}",
                resolution="destroy these first",
            )
        await self._forsake(template.id)
        # Looked at again: a sandbox may have come up over it while the clones went.
        if not await self._shelf.remove_unneeded(template.id):
            raise Conflict("the template is in use", details=template.id, resolution="wait a moment and try again")

    async def _forsake(self, template_id: str) -> None:
        """Have the clones made ahead of it removed; a pool busy for longer keeps it, and it stays in use."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FORSAKE_TIMEOUT_S):
                await self._pool.forsake(template_id)

    async def _get(self, template_id: str) -> MachineTemplate:
        for template in await self._shelf.templates():
            if template.id == template_id:
                return template
        raise NotFound(
            "no such template",
            details=f"{template_id[:80]!r} is no template; their ids begin with {PREFIX}",
            resolution="see 'hearth machine-template list'",
        )
