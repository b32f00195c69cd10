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
        self.residents[sandbox_id].heat = Heat.COLD
        cause = explain(Death(at=self.workshop.clock.now(), **asdict(end)))
        try:
            await self.store.sandboxes.transition(
                sandbox_id, (SandboxState.RUNNING,), SandboxState.FAILED, error=cause.detail, exit_cause=cause
            )
            log.warning("sandbox failed", sandbox=sandbox_id, kind=cause.kind, detail=cause.detail)
            await self.workshop.put_out(sandbox_id)
        except (NotFound, Conflict):
            log.debug("its end is no news: it is being destroyed", sandbox=sandbox_id)
        except (HearthError, OSError) as error:
            log.error("the end of a machine was not tidied up", sandbox=sandbox_id, error=str(error))
