"""Keeps every public name certified: orders what is missing, renews what expires, one at a time; never in a hurry."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import structlog

from hearth.control.publishing import CertificateState
from hearth.errors import HearthError
from hearth.host.clock import Clock
from hearth.host.process import run
from hearth.server.proxy.acme.files import CertificateFiles, Dates
from hearth.server.proxy.acme.messages import Order, Outcome
from hearth.server.proxy.acme.schedule import Failure, due, failed, free_at, look_again_s, next_try

log = structlog.get_logger(__name__)

ALPN = ["http/1.1"]
ORDER_S = 180.0
GRACE_S = 30.0
"""How long the child may take beyond its own limit."""
LIMITED = timedelta(hours=1)
"""How long no order is made after the authority had enough of us, unless it says longer."""

MOST_ORDERS, ORDERS_WINDOW = 200, timedelta(hours=3)
"""However they end; Let's Encrypt allows an account 300."""


@dataclass(frozen=True, kw_only=True)
class AcmeOptions:
    """Whom to ask for certificates, and how to prove that the zone is ours.

    ``hook``: a program that puts DNS records in place; then there is one certificate, for all names of the zone.
    """

    directory: str
    email: str | None = None
    ca_file: Path | None = None
    hook: Path | None = None


CarryOut = Callable[[Order], Awaitable[Outcome]]


class Keeper:
    """The certificates of one zone. ``aliases`` tells what is published."""

    def __init__(
        self,
        options: AcmeOptions,
        *,
        zone: str,
        files: CertificateFiles,
        aliases: Callable[[], Awaitable[Sequence[str]]],
        clock: Clock,
        carry_out: CarryOut | None = None,
    ) -> None:
        self._options = options
        self._zone = zone
        self._files = files
        self._aliases = aliases
        self._clock = clock
        self._carry_out = carry_out or order_in_child
        self._held: dict[str, Dates] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._failures: dict[str, Failure] = {}
        self._not_before: datetime | None = None
        self._orders_at: list[datetime] = []
        self._news = asyncio.Event()

    def load(self) -> None:
        """Take what an earlier daemon left; blocking. Raises HostUnfit."""
        self._files.prepare()
        self._failures = self._files.load_failures()
        for name, dates in self._files.load().items():
            self._take(name, dates)
            if dates.directory != self._options.directory:  # it serves until that authority has issued another
                self._held.pop(name, None)

    def context_for(self, host: str) -> ssl.SSLContext | None:
        """Give the TLS context for a host name; None where there is no certificate for it."""
        label, _, rest = host.lower().partition(".")
        return self._contexts.get(self._name_of(label)) if rest == self._zone else None

    def told(self, alias: str) -> CertificateState:
        """Tell how it stands with the certificate of an alias."""
        name, now = self._name_of(alias), self._clock.now()
        held, failure = self._held.get(name), self._failures.get(name)
        expires_at = None if held is None else held.not_after
        is_there = expires_at is not None and expires_at > now and name in self._contexts
        if failure is not None:
            state = CertificateState(state="failed", error=failure.error, retry_at=self._next_try(name, now))
        elif held is None and (free := free_at(self._held.values(), now)) is not None:
            state = CertificateState(state="failed", error="too many new names this week", retry_at=free)
        else:
            state = CertificateState(state="ordered")
        return replace(state, state="ready" if is_there else state.state, expires_at=expires_at)

    def wanted(self) -> None:
        """Look at once: there is a new name."""
        self._news.set()

    async def run(self) -> None:
        """Keep them until cancelled."""
        while True:
            self._news.clear()
            try:
                pause_s = await self._round()
            except HearthError as error:
                log.warning("certificates not looked after", error=str(error))
                pause_s = LIMITED.total_seconds()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._news.wait()

    async def _round(self) -> float:
        """Order what is due; gives how long nothing will be, in seconds."""
        while True:
            now = self._clock.now()
            wanted = await self._wanted()
            self._forget(wanted, now)
            if self._not_before is not None and now < self._not_before:
                return (self._not_before - now).total_seconds()
            name = due(wanted, self._held, self._failures, now)
            if name is None:
                return look_again_s(wanted, self._held, self._failures, now)
            self._orders_at = [at for at in self._orders_at if now - at < ORDERS_WINDOW]
            if len(self._orders_at) >= MOST_ORDERS:
                self._not_before = self._orders_at[0] + ORDERS_WINDOW
                continue
            self._orders_at.append(now)
            await self._order(name)

    async def _order(self, name: str) -> None:
        order = self._order_of(name)
        log.info("certificate ordered", name=name, renewal=order.is_renewal)
        try:
            outcome = await self._carry_out(order)
            if outcome.error is None:
                self._take(name, (await asyncio.to_thread(self._files.load))[name])
        except (HearthError, KeyError) as error:
            outcome = Outcome(error=str(error) if isinstance(error, HearthError) else "its file is not there")
        now = self._clock.now()
        if outcome.error is None:
            self._failures.pop(name, None)
            log.info("certificate issued", name=name, expires_at=self._held[name].not_after.isoformat())
        else:
            self._fail(name, outcome, now)
        await asyncio.to_thread(self._files.save_failures, dict(self._failures))

    def _fail(self, name: str, outcome: Outcome, now: datetime) -> None:
        failure = failed(self._failures.get(name), outcome.error or "", now, retry_after_s=outcome.retry_after_s)
        self._failures[name] = failure
        if outcome.is_rate_limited:
            self._not_before = now + max(LIMITED, timedelta(seconds=outcome.retry_after_s or 0))
        log.warning("certificate not issued", name=name, error=failure.error, retry_at=failure.retry_at.isoformat())

    def _order_of(self, name: str) -> Order:
        chosen = self._options
        return Order(
            directory=chosen.directory,
            names=[name],
            email=chosen.email,
            ca_file=None if chosen.ca_file is None else str(chosen.ca_file),
            account_key=str(self._files.account_key),
            challenges=str(self._files.challenges),
            hook=None if chosen.hook is None else str(chosen.hook),
            path=str(self._files.path(name)),
            is_renewal=name in self._held,
            timeout_s=ORDER_S,
        )

    def _take(self, name: str, dates: Dates) -> None:
        """Use a certificate from now on; one that cannot be used is told and ordered anew when it is due."""
        self._held[name] = dates
        try:
            self._contexts[name] = self._files.context(name, ALPN)
        except OSError as error:  # ssl.SSLError is one
            log.error("a certificate cannot be used", name=name, error=str(error))
            del self._held[name]

    def _forget(self, wanted: Sequence[str], now: datetime) -> None:
        """Let go of what nobody wants; a certificate only once it has expired: until then it counts, and may serve."""
        # A failure is kept while it counts: who takes a name away and publishes it again must not begin at once.
        for name in [each for each, last in self._failures.items() if each not in wanted and last.retry_at <= now]:
            del self._failures[name]
        for name in [each for each, dates in self._held.items() if each not in wanted and dates.not_after <= now]:
            del self._held[name]
            self._contexts.pop(name, None)
            self._files.remove(name)

    async def _wanted(self) -> Sequence[str]:
        if self._options.hook is not None:
            return [self._name_of("*")]
        return [self._name_of(alias) for alias in await self._aliases()]

    def _name_of(self, alias: str) -> str:
        return f"{'*' if self._options.hook is not None else alias}.{self._zone}"

    def _next_try(self, name: str, now: datetime) -> datetime:
        at = next_try(name, self._held, self._failures, now)
        return at if self._not_before is None else max(at, self._not_before)


async def order_in_child(order: Order) -> Outcome:
    """Have an order carried out by a process of its own.

    Raises:
        CommandFailed, TimedOut: it broke down, or took too long.
    """
    argv = [sys.executable, "-P", "-m", "hearth.server.proxy.acme.child"]
    done = await run(argv, timeout_s=order.timeout_s + GRACE_S, stdin=msgspec.json.encode(order))
    try:
        return msgspec.json.decode(done.stdout, type=Outcome)
    except msgspec.DecodeError:
        log.error("an order's outcome cannot be read", size=len(done.stdout))
        return Outcome(error="what carries orders out broke down")
