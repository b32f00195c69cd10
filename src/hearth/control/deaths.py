"""What is to be done when a machine ends by itself: find out why, say so in its row, tidy up what it leaves."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import structlog

from hearth.control.exit_cause import Death, explain
from hearth.control.residents import Residents
from hearth.engine.base import MachineEnd
from hearth.errors import Conflict, HearthError, NotFound
from hearth.jobs.bringup import Workshop
from hearth.model import Heat, SandboxState
from hearth.store.base import Store

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Deaths:
    """Told by the fleet."""

    store: Store
    workshop: Workshop
    residents: Residents

    async def note(self, sandbox_id: str, end: MachineEnd) -> None:
        """Make a sandbox FAILED whose machine has ended; one that is being destroyed is left to that."""
        self.residents.look_at(sandbox_id).heat = Heat.COLD
        cause = explain(Death(at=self.workshop.clock.now(), **asdict(end)))
        # Whoever wanted to use it at this moment may have found it gone, and not known why.
        found = (SandboxState.RUNNING, SandboxState.LOST)
        try:
            await self.store.sandboxes.transition(
                sandbox_id, found, SandboxState.FAILED, error=cause.detail, exit_cause=cause
            )
            log.warning("sandbox failed", sandbox=sandbox_id, kind=cause.kind, detail=cause.detail)
        except (NotFound, Conflict):
            log.debug("its end is no news: it is being destroyed", sandbox=sandbox_id)
        except (HearthError, OSError) as error:
            log.error("the end of a machine was not stored", sandbox=sandbox_id, error=str(error))

    async def tidy(self, sandbox_id: str) -> None:
        """Remove what a dead machine leaves, unless its sandbox is up again or is being removed."""
        try:
            await self.store.sandboxes.get(sandbox_id)
            async with self.residents[sandbox_id].lock:
                if (await self.store.sandboxes.get(sandbox_id)).state is SandboxState.FAILED:
                    await self.workshop.put_out(sandbox_id)
        except NotFound:
            log.debug("nothing to tidy up: it is destroyed", sandbox=sandbox_id)
        except (HearthError, OSError) as error:
            log.error("the end of a machine was not tidied up", sandbox=sandbox_id, error=str(error))
