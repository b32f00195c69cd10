"""The loop that lets unused sandboxes sleep: it looks at all of them, asks ``thermal`` and does what that decides.

It owns its transitions: never two at once on one sandbox, and what somebody else does to it (``busy``) goes first.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

import structlog

from hearth.control.activity import Signs, Use, look
from hearth.control.thermal import (
    Action,
    Decision,
    Failures,
    HostState,
    Policy,
    Reason,
    Round,
    Skip,
    Subject,
    decide,
)
from hearth.errors import Conflict, NotFound
from hearth.host.clock import Clock
from hearth.host.pressure import read_memory
from hearth.model import Heat

log = structlog.get_logger(__name__)

INTERVAL_S = 5.0
SHORTEST_INTERVAL_S = 0.2
STOPS_AT_ONCE = 2
"""A stop reads all of a machine's memory and writes to disk; more at once only make each slower."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What whoever runs the machines sees of one sandbox.

    Of a warm machine everything comes from the host alone: its agent cannot answer, asking it would wait in vain.
    ``busy`` means that it is being started, stopped, woken, forked or removed; ``private_mib`` is the memory of the
    host, in MiB, that ending its process would give back.
    """

    id: str
    heat: Heat
    signs: Signs = field(default_factory=Signs)
    busy: bool = False
    can_sleep: bool = True
    keep_hot: bool = False
    paged_out: bool = False
    idle_pause_s: float | None = None
    idle_stop_s: float | None = None
    expires_at: datetime | None = None
    private_mib: int = 0


class InUse(Conflict):
    """The sandbox is used, or being changed, by somebody by now; nothing was done. It counts as no failure."""


class Thermostat(Protocol):
    """What the loop works with. Each action looks again, under the machine's own lock, before it does anything.

    Actions that cannot be done raise whatever tells why; that is a failure, and tried again later and later.
    """

    async def observe(self) -> Sequence[Observation]:
        """Look at every sandbox on this host, waking and asking no warm one; every wait inside is bounded."""
        ...

    async def pause(self, sandbox_id: str) -> None:
        """Stop the CPUs. Raises InUse when somebody needs it by now, NotFound when it is gone."""
        ...

    async def page_out(self, sandbox_id: str) -> None:
        """Have a paused machine's memory paged out. Raises as ``pause``."""
        ...

    async def stop(self, sandbox_id: str) -> None:
        """Take it to disk and end its process; after any error it is as warm or hot as before. Raises as ``pause``."""
        ...

    async def expire(self, sandbox_id: str) -> None:
        """Destroy it: its time to live is over. Raises as ``pause``."""
        ...


@dataclass(frozen=True, kw_only=True)
class Failure:
    """An action that failed, for the ``tries``-th time in a row."""

    sandbox_id: str
    action: Action
    error: Exception
    tries: int


@dataclass(kw_only=True)
class Counters:
    """Everything the loop did and did not do since it began, for metrics."""

    rounds: int = 0
    blind_rounds: int = 0
    """In which nothing could be observed."""
    begun: Counter[tuple[Action, Reason]] = field(default_factory=Counter)
    done: Counter[Action] = field(default_factory=Counter)
    failed: Counter[Action] = field(default_factory=Counter)
    skips: Counter[Skip] = field(default_factory=Counter)


def _ignore(_: Failure) -> None:
    """The log tells it anyway."""


class HeatLoop:
    """Runs the policy.

    Args:
        host: looks at the host; ``host_reader`` makes one.
        on_failure: told of every failure, for an event; must not raise.
    """

    def __init__(
        self,
        thermostat: Thermostat,
        *,
        host: Callable[[], Awaitable[HostState]],
        clock: Clock,
        policy: Policy,
        interval_s: float = INTERVAL_S,
        stops_at_once: int = STOPS_AT_ONCE,
        on_failure: Callable[[Failure], None] = _ignore,
    ) -> None:
        self.counters = Counters()
        self._thermostat = thermostat
        self._host = host
        self._clock = clock
        self._policy = policy
        self._interval_s = interval_s
        self._stops_at_once = stops_at_once
        self._on_failure = on_failure
        self._uses: dict[str, Use] = {}
        self._failures: dict[str, dict[Action, tuple[int, float]]] = {}
        """For each sandbox and action: how often in a row, and when last, by the monotonic clock."""
        self._acting: dict[str, Action] = {}

    async def run(self) -> None:
        """Look and act until cancelled; actions under way are cancelled, too, and waited for."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                found = await self._round(tasks)
                next_s = found.next_s if found is not None and found.next_s is not None else self._interval_s
                await self._clock.sleep(max(SHORTEST_INTERVAL_S, min(next_s, self._interval_s)))

    def idle_s(self, sandbox_id: str) -> float | None:
        """Tell for how long a sandbox has not been used, as of the last look; None when it is not known."""
        use = self._uses.get(sandbox_id)
        return None if use is None else use.idle_s(self._clock.monotonic())

    async def _round(self, tasks: asyncio.TaskGroup) -> Round | None:
        """Look at everything once and begin what is to be done; None when nothing could be seen."""
        self.counters.rounds += 1
        try:
            observations = await self._thermostat.observe()
            host = await self._host()
        except Exception as error:  # noqa: BLE001  one bad look, whatever is behind it, must not be the last
            self.counters.blind_rounds += 1
            log.error("sandboxes cannot be observed", error=str(error))
            return None
        self._forget_all_but({observation.id for observation in observations})
        stops_free = self._stops_at_once - sum(action is Action.STOP for action in self._acting.values())
        found = decide(
            [self._subject(observation) for observation in observations],
            host,
            self._policy,
            stops_free=stops_free,
        )
        for sandbox_id, skip in found.skips.items():
            self._skip(sandbox_id, skip)
        for decision in found.decisions:
            self._begin(decision, tasks)
        return found

    def _subject(self, observation: Observation) -> Subject:
        now_s, signs = self._clock.monotonic(), observation.signs
        use = look(self._uses.get(observation.id), signs, now_s, busy_cpu_share=self._policy.busy_cpu_share)
        self._uses[observation.id] = use
        expires_at = observation.expires_at
        failures = self._failures.get(observation.id, {})
        return Subject(
            id=observation.id,
            heat=observation.heat,
            idle_s=use.idle_s(now_s),
            attached=signs.attached > 0,
            operating=signs.operations > 0,
            busy=observation.busy or observation.id in self._acting,
            can_sleep=observation.can_sleep,
            keep_hot=observation.keep_hot,
            paged_out=observation.paged_out,
            idle_pause_s=observation.idle_pause_s,
            idle_stop_s=observation.idle_stop_s,
            ttl_left_s=None if expires_at is None else (expires_at - self._clock.now()).total_seconds(),
            private_mib=observation.private_mib,
            failures={
                action: Failures(count=count, ago_s=now_s - failed_s) for action, (count, failed_s) in failures.items()
            },
        )

    def _forget_all_but(self, known: set[str]) -> None:
        for sandbox_id in self._uses.keys() - known:
            del self._uses[sandbox_id]
        for sandbox_id in self._failures.keys() - known:
            del self._failures[sandbox_id]

    def _skip(self, sandbox_id: str, skip: Skip) -> None:
        self.counters.skips[skip] += 1
        log.debug("left as it is", sandbox=sandbox_id, reason=skip.value)

    def _begin(self, decision: Decision, tasks: asyncio.TaskGroup) -> None:
        self._acting[decision.sandbox_id] = decision.action
        self.counters.begun[decision.action, decision.reason] += 1
        log.debug("cooling", sandbox=decision.sandbox_id, action=decision.action.value, reason=decision.reason.value)
        task = tasks.create_task(self._act(decision), name=f"{decision.action} {decision.sandbox_id}")
        # By callback, for a task that is cancelled before it began runs no ``finally``.
        task.add_done_callback(lambda _: self._acting.pop(decision.sandbox_id, None))

    async def _act(self, decision: Decision) -> None:
        sandbox_id, action = decision.sandbox_id, decision.action
        try:
            await self._doer(action)(sandbox_id)
        except (InUse, NotFound) as error:
            self._skip(sandbox_id, Skip.USED_MEANWHILE)
            log.debug("not cooled", sandbox=sandbox_id, action=action.value, error=str(error))
        except Exception as error:  # noqa: BLE001  a task ends here: one sandbox's trouble is nobody else's
            self._note_failure(sandbox_id, action, error)
        else:
            self.counters.done[action] += 1
            self._failures.get(sandbox_id, {}).pop(action, None)
            log.info("sandbox cooled", sandbox=sandbox_id, action=action.value, reason=decision.reason.value)

    def _note_failure(self, sandbox_id: str, action: Action, error: Exception) -> None:
        failures = self._failures.setdefault(sandbox_id, {})
        tries = failures.get(action, (0, 0.0))[0] + 1
        failures[action] = (tries, self._clock.monotonic())
        self.counters.failed[action] += 1
        log.warning("sandbox not cooled", sandbox=sandbox_id, action=action.value, tries=tries, error=str(error))
        self._on_failure(Failure(sandbox_id=sandbox_id, action=action, error=error, tries=tries))

    def _doer(self, action: Action) -> Callable[[str], Awaitable[None]]:
        match action:
            case Action.PAUSE:
                return self._thermostat.pause
            case Action.PAGE_OUT:
                return self._thermostat.page_out
            case Action.STOP:
                return self._thermostat.stop
            case Action.EXPIRE:
                return self._thermostat.expire


def host_reader(data_root: Path) -> Callable[[], Awaitable[HostState]]:
    """Give what looks at this host's memory and at the disk under ``data_root``."""

    def read() -> HostState:
        memory = read_memory()
        return HostState(
            pressure=memory.level,
            swap_free_mib=memory.swap_free_mib,
            disk_free_mib=shutil.disk_usage(data_root).free // (1024 * 1024),
        )

    async def read_aside() -> HostState:
        return await asyncio.to_thread(read)

    return read_aside
