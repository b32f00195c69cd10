"""Webhooks in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from hearth.host.clock import Clock
from hearth.host.identity import new_id
from hearth.model import Job
from hearth.store import refusals
from hearth.store.memory_tables import Tables
from hearth.store.webhook_store import HOOKS_KEPT_FOR
from hearth.webhooks import PROGRESS, STARTED, Delivery, Webhook, body_of, kind_of, origin_of


class MemoryWebhooks:
    """``WebhookStore`` in memory."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._tables = tables
        self._clock = clock

    async def add(self, hook: Webhook) -> None:
        job = self._tables.jobs.get(hook.job_id)
        if job is None:
            raise refusals.not_found("job", hook.job_id)
        oldest = self._clock.now() - HOOKS_KEPT_FOR
        for old in [each.id for each in self._tables.webhooks.values() if each.created_at <= oldest]:
            del self._tables.webhooks[old]
            for delivery in self._of(old):
                del self._tables.deliveries[delivery.id]
        known = {(each.job_id, each.url) for each in self._tables.webhooks.values()}
        if (hook.job_id, hook.url) not in known:
            self._tables.webhooks[hook.id] = hook
            tell(self._tables, self._clock, job, kind_of(job.state), (hook,))

    async def claim(self, owner: str, *, spared: Collection[str], lease_s: float) -> tuple[Webhook, Delivery] | None:
        now = self._clock.now()
        for delivery in sorted(self._tables.deliveries.values(), key=lambda each: (each.next_at, each.id)):
            hook = self._tables.webhooks[delivery.webhook_id]
            is_first = all(each.ended_at or each.number >= delivery.number for each in self._of(hook.id))
            is_free = delivery.lease_until is None or delivery.lease_until <= now
            is_due = delivery.ended_at is None and delivery.next_at <= now and hook.disabled_at is None
            if is_first and is_free and is_due and origin_of(hook.url) not in spared:
                until = now + timedelta(seconds=lease_s)
                return hook, self._put(replace(delivery, lease_owner=owner, lease_until=until))
        return None

    async def release(self, owners: str) -> int:
        held = [each for each in self._tables.deliveries.values() if (each.lease_owner or "").startswith(owners)]
        for each in held:
            self._put(replace(each, lease_owner=None, lease_until=None))
        return len(held)

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
        known, now = self._tables.deliveries.get(delivery_id), self._clock.now()
        if known is None or known.lease_owner != owner:
            return False
        ended_at = now if next_at is None or disable else None
        changed = replace(known, status=status, error=error, attempts=known.attempts + 1, ended_at=ended_at)
        self._put(replace(changed, next_at=next_at or known.next_at, lease_owner=None, lease_until=None))
        if disable:
            hook = self._tables.webhooks[known.webhook_id]
            self._tables.webhooks[hook.id] = replace(hook, disabled_at=now)
            for each in [each for each in self._of(hook.id) if each.ended_at is None]:
                self._put(replace(each, ended_at=now))
        return True

    async def deliveries(self, job_id: str) -> Sequence[tuple[Webhook, Delivery]]:
        hooks = [hook for hook in self._tables.webhooks.values() if hook.job_id == job_id]
        return [(hook, each) for hook in sorted(hooks, key=lambda hook: hook.id) for each in self._of(hook.id)]

    async def pending(self) -> int:
        return sum(1 for each in self._tables.deliveries.values() if each.ended_at is None)

    def _of(self, hook_id: str) -> list[Delivery]:
        found = [each for each in self._tables.deliveries.values() if each.webhook_id == hook_id]
        return sorted(found, key=lambda each: each.number)

    def _put(self, delivery: Delivery) -> Delivery:
        self._tables.deliveries[delivery.id] = delivery
        return delivery


def tell(tables: Tables, clock: Clock, job: Job, kind: str | None, hooks: Iterable[Webhook] | None = None) -> None:
    """Put a change of a job into the lines of its hooks."""
    for hook in tuple(tables.webhooks.values()) if hooks is None else hooks:
        if kind is None or hook.job_id != job.id or hook.disabled_at is not None:
            continue
        if kind in (STARTED, PROGRESS) and not hook.with_progress:
            continue
        number = sum(1 for each in tables.deliveries.values() if each.webhook_id == hook.id)
        event_id, now = new_id("evt"), clock.now()
        tables.deliveries[event_id] = Delivery(
            id=event_id,
            webhook_id=hook.id,
            number=number,
            kind=kind,
            body=body_of(event_id, kind, job, now),
            created_at=now,
            next_at=now,
        )
