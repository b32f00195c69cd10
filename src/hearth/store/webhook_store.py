"""What is remembered of webhooks: who is called about which job, and every call that is not over."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from hearth.webhooks import Delivery, Webhook

HOOKS_KEPT_FOR = timedelta(days=30)


class WebhookStore(Protocol):
    """Hooks and deliveries. The store of jobs adds a delivery in the same transaction as the change it tells of."""

    async def add(self, hook: Webhook) -> None:
        """Have a job's changes sent from now on; what it came to before (its start, its end) is sent, too.

        The same URL again is no other hook.

        Raises:
            NotFound: no such job.
        """
        ...

    async def claim(self, owner: str, *, spared: Collection[str], lease_s: float) -> tuple[Webhook, Delivery] | None:
        """Take the delivery that is due longest and first in its hook's line; None when there is none.

        Args:
            spared: origins that are not to be asked now.
        """
        ...

    async def release(self, owners: str) -> int:
        """Let go of what owners hold whose names begin with ``owners``, and give how many that were."""
        ...

    async def settle(
        self,
        delivery_id: str,
        owner: str,
        *,
        status: int | None,
        error: str | None,
        next_at: datetime | None,
        disable: bool = False,
    ) -> bool:
        """Write down how a try went: over (``next_at`` None), or to be repeated; count it and let go of it.

        Args:
            disable: the hook gets nothing more; what waits for it is over too.

        Returns:
            False where somebody else has it by now; nothing was written.
        """
        ...

    async def deliveries(self, job_id: str) -> Sequence[tuple[Webhook, Delivery]]:
        """Give all deliveries of a job's hooks that are still known, in their order."""
        ...

    async def pending(self) -> int:
        """Count those that are not over."""
        ...
