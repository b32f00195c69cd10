"""What is done with sandboxes that nobody uses: a pure function of use, time and the host's memory.

Idle machines sleep in three stages: their CPUs are stopped, their memory is paged out where the host has swap, and at
last they go to disk and their process ends. ``heat`` looks, asks ``decide`` and does what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from hearth.config import Settings
from hearth.host.pressure import PressureLevel
from hearth.model import Heat

FIRST_RETRY_S = 60.0
RETRY_FACTOR = 4.0
TRIES = 3
"""So often an action is tried with growing pauses; after that only once in a while."""
LAST_RETRY_S = 6 * 3600.0
LAST_RETRY_OF_EXPIRY_S = 600.0
"""What was to be gone by now is not left standing for hours."""


class Action(StrEnum):
    """What can be done with a sandbox, from the lightest on."""

    PAUSE = "pause"
    PAGE_OUT = "page_out"
    STOP = "stop"
    EXPIRE = "expire"


class Reason(StrEnum):
    """Why something is done."""

    IDLE = "idle"
    PRESSURE = "pressure"
    TTL = "ttl"


class Skip(StrEnum):
    """Why nothing is done with a sandbox; each is counted."""

    COLD = "cold"
    """It lies on disk already."""
    IN_USE = "in_use"
    """It was used too short a time ago."""
    RESTING = "resting"
    """It is warm and its time for the disk has not come."""
    KEEP_HOT = "keep_hot"
    ATTACHED = "attached"
    OPERATION = "operation"
    """Something is being done with it for a client right now."""
    BUSY = "busy"
    """It is on its way from one state to another."""
    CANNOT_SLEEP = "cannot_sleep"
    """Its engine does not offer it."""
    NO_SWAP = "no_swap"
    """Its memory would be paged out if the host had room for it."""
    DISK_LOW = "disk_low"
    """The data directory has no room for its memory."""
    BACKING_OFF = "backing_off"
    """It failed not long ago and is tried again soon."""
    GAVE_UP = "gave_up"
    """It failed again and again and is tried once in a while."""
    ROUND_FULL = "round_full"
    """Others, idler ones, go first."""
    USED_MEANWHILE = "used_meanwhile"
    """It was to be acted on and turned out to be in use; told by ``heat``."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The policy's numbers, times in seconds."""

    idle_pause_s: float
    idle_stop_s: float
    min_free_mib: int
    """What a stop must leave free on the data directory's disk."""
    page_out_after_s: float = 60.0
    """From when a machine would be paused until its memory is paged out."""
    pressure_idle_s: float = 5.0
    """While the host is short of memory this much idleness is enough."""
    pressure_per_round: int = 4
    """Most sandboxes cooled in one round for the host's sake: the next round sees what it helped."""
    busy_cpu_share: float = 0.05
    """Of one CPU. A guest that works more than this is in use; an idle one's timers and daemons take 1 to 3 %."""


def policy_of(settings: Settings) -> Policy:
    """Give the policy an operator has chosen."""
    return Policy(
        idle_pause_s=settings.idle_pause_s, idle_stop_s=settings.idle_stop_s, min_free_mib=settings.min_free_mib
    )


@dataclass(frozen=True, kw_only=True)
class HostState:
    """What matters of the host."""

    pressure: PressureLevel
    swap_free_mib: int
    disk_free_mib: int


@dataclass(frozen=True, kw_only=True)
class Failures:
    """How often in a row an action failed, and how many seconds ago the last time was."""

    count: int
    ago_s: float


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What matters of one sandbox. ``private_mib`` is the host memory that is its alone, in MiB.

    ``idle_pause_s`` and ``idle_stop_s`` None take the policy's; ``ttl_left_s`` None is a life without end.
    """

    id: str
    heat: Heat
    idle_s: float
    attached: bool = False
    operating: bool = False
    busy: bool = False
    can_sleep: bool = True
    keep_hot: bool = False
    paged_out: bool = False
    idle_pause_s: float | None = None
    idle_stop_s: float | None = None
    ttl_left_s: float | None = None
    private_mib: int = 0
    failures: Mapping[Action, Failures] = field(default_factory=dict)

    @property
    def expired(self) -> bool:
        return self.ttl_left_s is not None and self.ttl_left_s <= 0


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One thing to do."""

    sandbox_id: str
    action: Action
    reason: Reason


@dataclass(frozen=True, kw_only=True)
class Round:
    """What to do now: each sandbox is either in ``decisions`` or in ``skips``.

    ``next_s``: seconds until time alone changes something; None when only use, or the host, can.
    """

    decisions: Sequence[Decision]
    skips: Mapping[str, Skip]
    next_s: float | None


def decide(subjects: Iterable[Subject], host: HostState, policy: Policy, *, stops_free: int) -> Round:
    """Decide for every sandbox; the idlest go first, warm ones before hot ones while the host is short of memory.

    Args:
        subjects: every sandbox once.
        stops_free: how many stops may begin now.
    """
    known = list(subjects)
    budget = _Budget(host, policy, stops_free)
    decisions: list[Decision] = []
    skips: dict[str, Skip] = {}
    for subject in sorted(known, key=lambda subject: _rank(subject, host)):
        outcome = _judge(subject, host, policy, budget)
        if isinstance(outcome, Decision):
            decisions.append(outcome)
        else:
            skips[subject.id] = outcome
    moments = [moment for subject in known for moment in _moments(subject, host, policy)]
    return Round(decisions=decisions, skips=skips, next_s=min((at for at in moments if at > 0), default=None))


def retry_in_s(action: Action, failures: Failures | None) -> float:
    """Tell in how many seconds an action that has failed may be tried again; 0 when it may be now."""
    if failures is None or failures.count <= 0:
        return 0.0
    last_s = LAST_RETRY_OF_EXPIRY_S if action is Action.EXPIRE else LAST_RETRY_S
    # Beyond TRIES the power would only grow out of all bounds.
    pause_s = FIRST_RETRY_S * RETRY_FACTOR ** (failures.count - 1) if failures.count < TRIES else last_s
    return max(0.0, pause_s - failures.ago_s)


class _Budget:
    """What is left to hand out in one round."""

    def __init__(self, host: HostState, policy: Policy, stops_free: int) -> None:
        self._stops = stops_free
        self._pressure = policy.pressure_per_round
        self._disk_mib = host.disk_free_mib - policy.min_free_mib
        self._swap_mib = host.swap_free_mib

    def obstacle(self, subject: Subject, action: Action, reason: Reason) -> Skip | None:
        """Tell what stands in the way of an action."""
        failures = subject.failures.get(action)
        if retry_in_s(action, failures) > 0:
            return Skip.GAVE_UP if failures is not None and failures.count >= TRIES else Skip.BACKING_OFF
        if action is Action.PAGE_OUT and (self._swap_mib <= 0 or subject.private_mib > self._swap_mib):
            return Skip.NO_SWAP
        if action is Action.STOP and subject.private_mib > self._disk_mib:
            return Skip.DISK_LOW
        if (reason is Reason.PRESSURE and self._pressure <= 0) or (action is Action.STOP and self._stops <= 0):
            return Skip.ROUND_FULL
        return None

    def take(self, subject: Subject, action: Action, reason: Reason) -> None:
        """Use up what an action takes."""
        self._pressure -= reason is Reason.PRESSURE
        if action is Action.STOP:
            self._stops -= 1
            self._disk_mib -= subject.private_mib
        elif action is Action.PAGE_OUT:
            self._swap_mib -= subject.private_mib


def _judge(subject: Subject, host: HostState, policy: Policy, budget: _Budget) -> Decision | Skip:
    if subject.busy:
        return Skip.BUSY
    if not subject.expired and (pinned := _pinned(subject)):
        return pinned
    refusal: Skip | None = None
    for action, reason in _wanted(subject, host, policy):
        obstacle = budget.obstacle(subject, action, reason)
        if obstacle is None:
            budget.take(subject, action, reason)
            return Decision(sandbox_id=subject.id, action=action, reason=reason)
        refusal = refusal or obstacle
    return refusal or (Skip.IN_USE if subject.heat is Heat.HOT else Skip.RESTING)


def _pinned(subject: Subject) -> Skip | None:
    """Tell what keeps a sandbox as it is, whatever the time and the host."""
    if subject.heat is Heat.COLD:
        return Skip.COLD
    if not subject.can_sleep:
        return Skip.CANNOT_SLEEP
    if subject.keep_hot:
        return Skip.KEEP_HOT
    if subject.attached:
        return Skip.ATTACHED
    return Skip.OPERATION if subject.operating else None


def _wanted(subject: Subject, host: HostState, policy: Policy) -> Sequence[tuple[Action, Reason]]:
    """Tell what would be good for a sandbox, the best first; the others are for when that cannot be."""
    if subject.expired:
        return [(Action.EXPIRE, Reason.TTL)]
    pause_s, page_out_s, stop_s = _timers(subject, policy)
    wanted: list[tuple[Action, Reason]] = []
    pressed = host.pressure is not PressureLevel.NONE and subject.idle_s >= policy.pressure_idle_s
    if subject.idle_s >= stop_s:
        wanted.append((Action.STOP, Reason.IDLE))
    if subject.heat is Heat.HOT:
        if subject.idle_s >= pause_s:
            wanted.append((Action.PAUSE, Reason.IDLE))
        elif pressed:
            wanted.append((Action.PAUSE, Reason.PRESSURE))
        return wanted
    if pressed:
        wanted += [(action, Reason.PRESSURE) for action in _relief(subject, host)]
    if not subject.paged_out and subject.idle_s >= page_out_s:
        wanted.append((Action.PAGE_OUT, Reason.IDLE))
    return wanted


def _relief(subject: Subject, host: HostState) -> Sequence[Action]:
    """Tell how a warm machine gives the host memory back, the best first."""
    if subject.paged_out:
        return [Action.STOP]
    # Paging out frees memory sooner than a snapshot is written. But zram is memory, too: in the worst case only a stop
    # is sure to help.
    if host.pressure is PressureLevel.HIGH or host.swap_free_mib <= 0:
        return [Action.STOP, Action.PAGE_OUT]
    return [Action.PAGE_OUT, Action.STOP]


def _timers(subject: Subject, policy: Policy) -> tuple[float, float, float]:
    """Give after how many idle seconds a sandbox is paused, paged out and stopped."""
    pause_s = policy.idle_pause_s if subject.idle_pause_s is None else subject.idle_pause_s
    stop_s = policy.idle_stop_s if subject.idle_stop_s is None else subject.idle_stop_s
    return pause_s, pause_s + policy.page_out_after_s, stop_s


def _rank(subject: Subject, host: HostState) -> tuple[bool, bool, float, str]:
    """Give the order in which sandboxes take from the budget."""
    pressed = host.pressure is not PressureLevel.NONE
    return not subject.expired, pressed and subject.heat is Heat.HOT, -subject.idle_s, subject.id


def _moments(subject: Subject, host: HostState, policy: Policy) -> Iterable[float]:
    """Give in how many seconds time alone may change what is decided for a sandbox; past ones are negative."""
    if subject.ttl_left_s is not None:
        yield subject.ttl_left_s
    for action, failures in subject.failures.items():
        yield retry_in_s(action, failures)
    if _pinned(subject) is None:
        pause_s, page_out_s, stop_s = _timers(subject, policy)
        yield stop_s - subject.idle_s
        if subject.heat is Heat.HOT:
            yield pause_s - subject.idle_s
        if not subject.paged_out and host.swap_free_mib > 0:
            yield page_out_s - subject.idle_s
