"""What an attack is made of, as values: probes, what came of them, what others saw, and the rows of its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

Flow = tuple[str, str, int]
"""Protocol (``tcp``, ``udp``), address and port."""


class Where(StrEnum):
    """Which sandbox a probe runs in."""

    TARGET = "target"
    FRIEND = "friend"
    """A throw-away sandbox of the same owner."""
    STRANGER = "stranger"
    """A throw-away sandbox of another owner."""
    SPARE = "spare"
    """A throw-away sandbox of the same owner for what would spoil the target."""
    AFTERWARDS = "afterwards"
    """The friend, after the spare's floods."""


class Expect(StrEnum):
    """What has to come of a probe if the installation holds."""

    DENIED = "denied"
    """No connection, no answer, and somebody who can tell that it was refused or did not pass."""
    ALLOWED = "allowed"
    """Open by design or by the policy: shown, and no more."""
    CONTAINED = "contained"
    """Frames that leave the guest and are handed on to nobody."""
    REFUSED_NAME = "refused name"
    """A name that is not answered."""
    ONLY = "only"
    """A scan that finds exactly ``ports``."""
    ALONE = "alone"
    """The agent closes without a byte."""
    BOUNDED = "bounded"
    """Too much is asked for; it is cut off, and the others do not notice."""
    SURVIVED = "survived"
    """Nothing is to be refused, but everybody has to be well afterwards."""


class Verdict(StrEnum):
    """What a row says in the end."""

    HELD = "held"
    BROKEN = "BROKEN"
    ALLOWED = "allowed"
    NOT_TRIED = "not tried"
    UNPROVEN = "unproven"
    """It looked well, but nothing shows that a success would have been seen."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One thing to try.

    Args:
        do, how: the prober's action and its arguments; "" for what the host itself does.
        control: ids of probes that must have succeeded, or nothing is proved by this one's failure.
        flow: what the daemon would tell of when it refuses, and an observer see pass.
        names: end of the names asked for, as the daemon tells of them.
        ports: for ONLY.
        because: why it is allowed, or not tried.
        tried_at_all: False where something is missing for it; ``because`` says what.
    """

    id: str
    group: str
    target: str
    tried: str
    expect: Expect
    do: str = ""
    how: Mapping[str, Any] = field(default_factory=dict)
    where: Where = Where.TARGET
    control: tuple[str, ...] = ()
    flow: Flow | None = None
    names: str = ""
    ports: tuple[int, ...] = ()
    because: str = ""
    tried_at_all: bool = True


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the prober said of one probe: a word, and more for people. All of it is the guest's: untrusted."""

    word: str
    detail: str = ""
    ports: tuple[int, ...] = ()
    sent: int = 0


@dataclass(frozen=True, kw_only=True)
class Passage:
    """What an observer on the daemon's host saw of the target's packets.

    Args:
        left: probes whose mark left the guest; ``flows_left`` the same for connections, which bear no mark.
        passed: probes whose mark was handed on to anybody but the target; ``flows_passed`` the same for connections.
    """

    left: frozenset[str] = frozenset()
    passed: frozenset[str] = frozenset()
    flows_left: frozenset[Flow] = frozenset()
    flows_passed: frozenset[Flow] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known after an attack.

    Args:
        witnesses: addresses of the sandboxes that watch what reaches them.
        seen_by: witness → probes whose mark reached it.
        refusals: what the daemon told that it refused meanwhile; ``names_refused`` the names among that.
        rules: what it told of the spare: rule → times.
        passage: None where nobody watched, or the watch is not to be relied on.
        harm: what was not well after a probe: id → words.
    """

    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    witnesses: frozenset[str] = frozenset()
    seen_by: Mapping[str, frozenset[str]] = field(default_factory=dict)
    refusals: frozenset[Flow] = frozenset()
    names_refused: frozenset[str] = frozenset()
    rules: Mapping[str, int] = field(default_factory=dict)
    passage: Passage | None = None
    harm: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the report; ``proof`` says why the verdict may be believed."""

    id: str
    probe: str
    target: str
    tried: str
    outcome: str
    verdict: Verdict
    proof: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """What an attack came to."""

    sandbox: str
    policy: str
    observed: str
    """Whether somebody watched on the daemon's host, or why not."""
    rows: tuple[Row, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Tell how many rows there are of each verdict."""
        return {verdict.value: sum(row.verdict is verdict for row in self.rows) for verdict in Verdict}

    @property
    def has_held(self) -> bool:
        """True when everything that was tried is proved to hold."""
        return not any(row.verdict in (Verdict.BROKEN, Verdict.UNPROVEN) for row in self.rows)
