"""Webhooks in SQL: an outbox that is written with the jobs it tells of, and read by whoever delivers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, or_, select, update

from hearth.host.clock import Clock
from hearth.host.identity import new_id
from hearth.model import Job
from hearth.store import refusals, rows
from hearth.store.database import Database
from hearth.store.schema import deliveries, jobs, webhooks
from hearth.store.webhook_store import HOOKS_KEPT_FOR
from hearth.webhooks import PROGRESS, STARTED, Delivery, Webhook, body_of, kind_of, origin_of

HOOK = ("id", "job_id", "url", "with_progress", "created_at", "disabled_at")


class SqlWebhooks:
    """``WebhookStore`` over a database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, hook: Webhook) -> None:
        old = select(webhooks.c.id).where(webhooks.c.created_at <= self._clock.now() - HOOKS_KEPT_FOR)
        row = {name: getattr(hook, name) for name in HOOK} | {"origin": origin_of(hook.url)}
        known = select(webhooks.c.id).where(webhooks.c.job_id == hook.job_id, webhooks.c.url == hook.url)

        def work(connection: Connection) -> None:
            # Locked until the hook is stored: whoever changes the job before that is waited for, and seen.
            found = connection.execute(select(jobs).where(jobs.c.id == hook.job_id).with_for_update()).first()
            if found is None:
                raise refusals.not_found("job", hook.job_id)
            connection.execute(delete(deliveries).where(deliveries.c.webhook_id.in_(old)))
            connection.execute(delete(webhooks).where(webhooks.c.id.in_(old)))
            if connection.execute(known).first() is None:
                connection.execute(insert(webhooks), row)
                job = rows.job_of(found)  # it may have been taken up, or have ended, before
                tell(connection, job, kind_of(job.state), self._clock.now(), only=hook.id)

        await self._database.write(work)

    async def claim(self, owner: str, *, spared: Collection[str], lease_s: float) -> tuple[Webhook, Delivery] | None:
        now, ahead = self._clock.now(), deliveries.alias("ahead")
        is_behind = exists().where(
            ahead.c.webhook_id == deliveries.c.webhook_id,
            ahead.c.number < deliveries.c.number,
            ahead.c.ended_at.is_(None),
        )
        first = (
            select(deliveries.c.id)
            .join(webhooks, webhooks.c.id == deliveries.c.webhook_id)
            .where(deliveries.c.ended_at.is_(None), deliveries.c.next_at <= now, webhooks.c.disabled_at.is_(None))
            .where(or_(deliveries.c.lease_until.is_(None), deliveries.c.lease_until <= now), ~is_behind)
            .where(webhooks.c.origin.not_in(sorted(spared)))
            .order_by(deliveries.c.next_at, deliveries.c.id)
            .limit(1)
            .with_for_update(skip_locked=True, of=deliveries)
        )
        leased = update(deliveries).values(lease_owner=owner, lease_until=now + timedelta(seconds=lease_s))

        def work(connection: Connection) -> tuple[Webhook, Delivery] | None:
            delivery_id = connection.scalar(first)
            if delivery_id is None:
                return None
            taken = leased.where(deliveries.c.id == delivery_id).returning(*deliveries.c)
            found = _delivery_of(connection.execute(taken).one())
            hook = connection.execute(select(webhooks).where(webhooks.c.id == found.webhook_id)).one()
            return _hook_of(hook), found

        return await self._database.write(work)

    async def release(self, owners: str) -> int:
        held = deliveries.c.lease_owner.startswith(owners, autoescape=True)
        statement = update(deliveries).where(held).values(lease_owner=None, lease_until=None)
        return await self._database.write(lambda connection: connection.execute(statement).rowcount)

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
        now = self._clock.now()
        values: dict[str, Any] = {"status": status, "error": error, "lease_owner": None, "lease_until": None}
        values["ended_at"] = now if next_at is None or disable else None
        values |= {} if next_at is None else {"next_at": next_at}
        statement = (
            update(deliveries)
            .where(deliveries.c.id == delivery_id, deliveries.c.lease_owner == owner)
            .values(attempts=deliveries.c.attempts + 1, **values)
            .returning(deliveries.c.webhook_id)
        )

        def work(connection: Connection) -> bool:
            hook_id = connection.scalar(statement)
            if hook_id is not None and disable:
                connection.execute(update(webhooks).where(webhooks.c.id == hook_id).values(disabled_at=now))
                waiting = update(deliveries).where(deliveries.c.webhook_id == hook_id, deliveries.c.ended_at.is_(None))
                connection.execute(waiting.values(ended_at=now))
            return hook_id is not None

        return await self._database.write(work)

    async def deliveries(self, job_id: str) -> Sequence[tuple[Webhook, Delivery]]:
        mine = select(webhooks).where(webhooks.c.job_id == job_id).order_by(webhooks.c.id)
        theirs = select(deliveries).join(webhooks, webhooks.c.id == deliveries.c.webhook_id)
        theirs = theirs.where(webhooks.c.job_id == job_id).order_by(deliveries.c.webhook_id, deliveries.c.number)

        def work(connection: Connection) -> list[tuple[Webhook, Delivery]]:
            hooks = {row.id: _hook_of(row) for row in connection.execute(mine)}
            found = [_delivery_of(row) for row in connection.execute(theirs)]
            return [(hooks[each.webhook_id], each) for each in found if each.webhook_id in hooks]

        return await self._database.read(work)

    async def pending(self) -> int:
        statement = select(func.count()).select_from(deliveries).where(deliveries.c.ended_at.is_(None))
        return await self._database.read(lambda connection: connection.scalar(statement) or 0)


def tell(connection: Connection, job: Job, kind: str | None, now: datetime, *, only: str | None = None) -> None:
    """Put a change of a job, whose row the caller's transaction has locked, into the lines of its hooks, or of one."""
    if kind is None:
        return
    wanted = select(webhooks).where(webhooks.c.job_id == job.id, webhooks.c.disabled_at.is_(None))
    if kind in (STARTED, PROGRESS):
        wanted = wanted.where(webhooks.c.with_progress.is_(True))
    if only is not None:
        wanted = wanted.where(webhooks.c.id == only)
    for hook in connection.execute(wanted.order_by(webhooks.c.id)).all():
        mine = select(func.count()).select_from(deliveries).where(deliveries.c.webhook_id == hook.id)
        event_id = new_id("evt")
        row = {
            "id": event_id,
            "webhook_id": hook.id,
            "number": connection.scalar(mine),
            "kind": kind,
            "body": body_of(event_id, kind, job, now),
            "created_at": now,
            "next_at": now,
            "attempts": 0,
        }
        connection.execute(insert(deliveries), row)


def _hook_of(row: Any) -> Webhook:
    return Webhook(**{name: getattr(row, name) for name in HOOK})


def _delivery_of(row: Any) -> Delivery:
    return Delivery(**{column.name: getattr(row, column.name) for column in deliveries.c})
