"""Calls whoever wants to know about a job: signed, in order, again until it is heard, and nowhere but where it may."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

import httpcore
import structlog

from hearth.errors import Forbidden, HearthError, InvalidInput
from hearth.host.clock import Clock
from hearth.host.identity import new_id
from hearth.image.golden.addresses import check_host
from hearth.image.golden.base import SourceRefused
from hearth.image.golden.http import CheckedBackend, redact
from hearth.image.golden.settings import SourcePolicy
from hearth.metrics.instruments import WEBHOOK_DELIVERIES, WEBHOOK_SECONDS
from hearth.model import Job
from hearth.store.webhook_store import WebhookStore
from hearth.version import VERSION
from hearth.webhooks import PORTS, Delivery, Webhook, headers_of, origin_of, pause_s

log = structlog.get_logger(__name__)

URL_FIELD = "webhook_url"
URL_MAX_CHARACTERS = 2048
LOOK_EVERY_S = 1.0
TIMEOUT_S = 10.0
"""Of a whole call; whoever has more to do answers first."""
LEASE_S = 60.0
AT_ONCE = 8
AT_ONCE_PER_ORIGIN = 2
GONE = 410


@dataclass(frozen=True, kw_only=True)
class WebhookSettings:
    """What an operator decides: whom calls may go to, the secrets they are signed with, when to give somebody up."""

    policy: SourcePolicy
    secrets: Sequence[bytes] = field(default=(), repr=False)
    give_up_s: float = 86_400.0


class Webhooks:
    """The calls of one daemon; several on one database share the work.

    Args:
        host: whose daemon this is; one runs at a time, so that what an earlier one held is free once this one runs.
        run: names this run of the daemon, in leases beside the host.
    """

    def __init__(self, store: WebhookStore, settings: WebhookSettings, *, clock: Clock, host: str, run: str) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._host = host
        self._owner = f"{host}/{run}"
        self._calling: Counter[str] = Counter()
        self._ended = asyncio.Event()

    def check(self, url: str) -> None:
        """Refuse a URL that is none, or that calls may not go to.

        Raises:
            InvalidInput: it is no URL, or the operator has set no secret.
            Forbidden: the operator does not list it.
        """
        if not self._settings.secrets:
            raise InvalidInput(
                "webhooks are not set up",
                details="calls are signed, and the operator has set no webhook_secret",
                resolution="have webhook_secret set, or follow the job's events",
                field=URL_FIELD,
            )
        try:
            parts = urlsplit(url)
            port = parts.port or PORTS[parts.scheme]
        except (ValueError, KeyError) as error:
            raise _bad_url("it begins with http:// or https:// and names a host") from error
        if not parts.hostname or parts.username is not None or not url.isascii() or not url.isprintable():
            raise _bad_url("it has no host, a user in it, or characters that no URL has")
        if " " in url or parts.fragment or len(url) > URL_MAX_CHARACTERS:
            raise _bad_url(f"it holds a blank or a fragment, or more than {URL_MAX_CHARACTERS} characters")
        try:
            check_host(self._settings.policy, parts.hostname, port)
        except SourceRefused as error:
            raise Forbidden(
                "webhooks do not go there",
                details=f"the operator does not list {parts.hostname[:100]}:{port} in webhook_hosts",
                resolution="use a listed host, or have this one listed",
                field=URL_FIELD,
            ) from error

    async def add(self, job: Job, url: str, *, with_progress: bool) -> None:
        """Call a URL about a job; one that is called about it already is called no more often."""
        hook = Webhook(
            id=new_id("hook"), job_id=job.id, url=url, with_progress=with_progress, created_at=self._clock.now()
        )
        await self._store.add(hook)

    async def deliveries(self, job_id: str) -> Sequence[tuple[Webhook, Delivery]]:
        """Give what was sent, or is to be, about a job."""
        return await self._store.deliveries(job_id)

    async def run(self) -> None:
        """Deliver until cancelled; what is under way then is sent again by whoever comes next."""
        if not self._settings.secrets:
            return
        context = ssl.create_default_context()
        backend = CheckedBackend(self._settings.policy)
        async with (
            httpcore.AsyncConnectionPool(
                ssl_context=context, network_backend=backend, max_connections=AT_ONCE, max_keepalive_connections=0
            ) as pool,
            asyncio.TaskGroup() as tasks,
        ):
            await self._inherit()
            while True:
                self._ended.clear()
                taken = None
                if self._calling.total() < AT_ONCE:
                    taken = await self._take()
                if taken is not None:
                    self._calling[origin_of(taken[0].url)] += 1
                    tasks.create_task(self._deliver(pool, *taken), name=f"webhook {taken[1].id}")
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await self._ended.wait()

    async def _inherit(self) -> None:
        """Call at once about what an earlier run of this daemon was busy with when it was killed."""
        try:
            if left := await self._store.release(f"{self._host}/"):
                log.info("webhooks of an earlier run are sent again", count=left)
        except HearthError as error:
            log.warning("webhooks of an earlier run wait until their leases end", error=str(error))

    async def _take(self) -> tuple[Webhook, Delivery] | None:
        busy = [origin for origin, count in self._calling.items() if count >= AT_ONCE_PER_ORIGIN]
        try:
            if not await self._store.pending():
                return None
            return await self._store.claim(self._owner, spared=busy, lease_s=LEASE_S)
        except HearthError as error:
            log.debug("no webhook could be taken", error=str(error))
            return None

    async def _deliver(self, pool: httpcore.AsyncConnectionPool, hook: Webhook, delivery: Delivery) -> None:
        try:
            with WEBHOOK_SECONDS.time():
                status, error, asked_s = await self._call(pool, hook, delivery)
            await self._settle(hook, delivery, status, error, asked_s)
        except HearthError as error_of_store:
            log.warning("a webhook's outcome was not stored: it is sent again", error=str(error_of_store))
        except Exception:
            # What is wrong with one receiver must not keep the others from being called.
            log.exception("webhook failed", delivery=delivery.id)
        finally:
            origin = origin_of(hook.url)
            self._calling[origin] -= 1
            if self._calling[origin] <= 0:
                del self._calling[origin]
            self._ended.set()

    async def _call(
        self, pool: httpcore.AsyncConnectionPool, hook: Webhook, delivery: Delivery
    ) -> tuple[int | None, str | None, float | None]:
        """Send one, and give the status, what went wrong, and after how many seconds it wants to be asked again."""
        headers = {
            "host": urlsplit(hook.url).netloc,
            "content-type": "application/json",
            "user-agent": f"hearth/{VERSION}",
            **headers_of(self._settings.secrets, delivery, int(time.time())),
        }
        try:
            self.check(hook.url)  # what the operator lists may have changed
            async with (
                asyncio.timeout(TIMEOUT_S),
                pool.stream("POST", hook.url, headers=list(headers.items()), content=delivery.body.encode()) as answer,
            ):
                if 200 <= answer.status < 300:
                    return answer.status, None, None
                sent = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in answer.headers}
                after = sent.get("retry-after", "")
                asked_s = float(after) if re.fullmatch(r"\d{1,6}", after) else None
                return answer.status, f"HTTP {answer.status}", asked_s
        except TimeoutError:
            return None, f"no answer within {TIMEOUT_S:g} s", None
        except HearthError as error:
            return None, error.brief, None
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            return None, f"{type(error).__name__}: {str(error)[:200]}", None

    async def _settle(
        self, hook: Webhook, delivery: Delivery, status: int | None, error: str | None, asked_s: float | None
    ) -> None:
        now, tried = self._clock.now(), delivery.attempts + 1
        story = {"job": hook.job_id, "url": redact(hook.url), "kind": delivery.kind, "delivery": delivery.id}
        is_late = now - delivery.created_at >= timedelta(seconds=self._settings.give_up_s)
        gives_up = error is not None and (is_late or status == GONE)
        next_at = None
        if error is not None and not gives_up:
            next_at = now + timedelta(seconds=pause_s(tried, asked_s))
        is_ours = await self._store.settle(
            delivery.id, self._owner, status=status, error=error, next_at=next_at, disable=gives_up
        )
        if not is_ours:
            return
        if error is None:
            WEBHOOK_DELIVERIES.labels("delivered").inc()
            log.info("webhook delivered", **story, tries=tried)
        elif gives_up:
            WEBHOOK_DELIVERIES.labels("given_up").inc()
            log.warning("webhook given up: it gets nothing more", **story, tries=tried, error=error)
        else:
            WEBHOOK_DELIVERIES.labels("failed").inc()
            log.info("webhook failed; it is sent again", **story, tries=tried, error=error)


def _bad_url(why: str) -> InvalidInput:
    return InvalidInput("invalid webhook_url", details=why, resolution="give an http or https URL", field=URL_FIELD)
