"""Why a machine ended: a pure judgement of how its VMM went, what the host knows and the last words of its console.

The console is the guest's to write, and a guest that lies there deceives its own user only. What it writes is bounded
and made printable before anybody sees it.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from hearth.host.spawn import signal_name
from hearth.model import MAX_CONSOLE_LINES, ExitCause, ExitKind

MAX_CONSOLE_CHARACTERS = 64 * 1024
MAX_LINE_CHARACTERS = 240
MAX_DETAIL_CHARACTERS = 400
MAX_PROCESS_CHARACTERS = 64
EXIT_SIGNALS_OF_A_CRASH = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGTRAP,
        signal.SIGSYS,  # a system call its own filter forbids
    }
)

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[@-~]")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
# mm/oom_kill.c, __oom_kill_process: "%s: Killed process %d (%s) total-vm:%lukB, ..."; before Linux 5.3 also
# "Kill process %d (%s) score %u or sacrifice child". A name may hold parentheses itself.
_OOM_KILL = re.compile(
    r"(?P<group>Memory cgroup )?[Oo]ut of memory[^:]{0,60}: Kill(?:ed)? process (?P<pid>\d{1,10}),? "
    r"\((?P<process>.{1,40}?)\),? (?:total-vm|score|UID|anon-rss)"
)
_OOM_KILL_SHORT = re.compile(
    r"(?P<group>Memory cgroup )?[Oo]ut of memory[^:]{0,60}: Kill(?:ed)? process (?P<pid>\d{1,10}),? "
    r"\((?P<process>[^()]{1,40})\)"
)
_PANIC = re.compile(r"Kernel panic - not syncing:? ?(?P<why>.*?)(?: \]---)?$")
_OOM_PANIC = re.compile(r"deadlocked on memory|[Oo]ut of memory|panic_on_oom|no killable process")
_INIT_KILLED = re.compile(r"Attempted to kill init")
# Lockup reports and lock debugging begin with BUG:, too, and are survived.
_BUG = re.compile(
    r"\bBUG: (?!soft lockup|workqueue lockup|sleeping function)|\bOops:|\bkernel BUG at|general protection fault,"
)
_POWER_OFF = re.compile(r"reboot: (?:System halted|Restarting system|Power down|machine restart)|\bsysrq: Power Off")
_READ_ONLY = re.compile(
    r"EXT4-fs.{0,80}(?:Remounting filesystem read-only|No space left on device|delayed block allocation failed)"
    r"|JBD2?: .{0,80}(?:Aborting journal|I/O error)|critical space allocation error"
)
_NO_SPACE_EVENT = re.compile(r"BLOCK_IO_ERROR.{0,400}?(?:\"?nospace\"?'?\s*[:=]\s*[Tt]rue|ENOSPC|No space left)")
_GUEST_PANICKED = re.compile(r"GUEST_PANICKED|guest-panic")
_GUEST_SHUTDOWN = re.compile(r"guest-shutdown|guest-reset")
_OOM_KILLS = re.compile(r"^oom_kill (\d{1,19})$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Death:
    """All that is known about the end of a machine nobody meant to end.

    Args:
        how: the VMM's end in words; only the first line counts.
        status: its exit status, None when it is not known, as of a VMM an earlier daemon started.
        signal: the signal that ended it.
        console: the tail of the guest's serial console.
        events: what the VMM reported before its end: QMP events and log lines, each as one text.
        oom_kills: processes of the machine's control group that the host's kernel killed for want of memory.
        limit_hits: how often that group reached its limit (version 1's memory.failcnt).
    """

    how: str
    at: datetime
    status: int | None = None
    signal: int | None = None
    console: str = ""
    events: Sequence[str] = ()
    oom_kills: int = 0
    limit_hits: int = 0


@dataclass(frozen=True, kw_only=True)
class _Finding:
    """What one rule found."""

    kind: ExitKind
    detail: str
    process: str | None = None


def explain(death: Death) -> ExitCause:
    """Tell why a machine ended; what fits no rule is ``unknown``, with the VMM's own words."""
    lines = console_lines(death.console)
    found = next((finding for rule in _RULES if (finding := rule(death, lines)) is not None), None)
    if found is None:
        found = _Finding(kind=ExitKind.UNKNOWN, detail=_words(death) or "the VMM ended without a word")
    return ExitCause(
        kind=found.kind,
        detail=printable(found.detail, MAX_DETAIL_CHARACTERS),
        at=death.at,
        process=None if found.process is None else printable(found.process, MAX_PROCESS_CHARACTERS),
        console=tuple(lines[-MAX_CONSOLE_LINES:]),
    )


def ended_by(kind: ExitKind, detail: str, at: datetime, *, console: str = "") -> ExitCause:
    """Give the cause of an end that hearth itself brought about: user, time to live, a restart of the host."""
    lines = console_lines(console)[-MAX_CONSOLE_LINES:]
    return ExitCause(kind=kind, detail=printable(detail, MAX_DETAIL_CHARACTERS), at=at, console=tuple(lines))


def console_lines(text: str) -> list[str]:
    """Give the lines of a console that hold anything, printable ASCII only, each and all of them bounded."""
    lines = (printable(line, MAX_LINE_CHARACTERS) for line in text[-MAX_CONSOLE_CHARACTERS:].splitlines())
    return [line for line in lines if line]


def printable(text: str, most: int) -> str:
    """Give ``text`` as printable ASCII of at most ``most`` characters: no escapes, no control characters."""
    plain = _ESCAPES.sub("", text[: most * 4]).replace("\t", " ")
    return _UNPRINTABLE.sub("", plain).strip()[:most]


def parse_oom_kills(text: str) -> int:
    """Read ``oom_kill`` from the text of memory.events (version 2) or memory.oom_control (1); 0 when it is not there.

    Source: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
    """
    found = _OOM_KILLS.search(text)
    return int(found[1]) if found else 0


def _host_pressure(death: Death, lines: Sequence[str]) -> _Finding | None:  # noqa: ARG001
    if death.signal == signal.SIGKILL and death.oom_kills:
        return _Finding(
            kind=ExitKind.HOST_PRESSURE,
            detail="the host's kernel killed the VMM: its memory limit, or the host's memory",
        )
    if death.signal == signal.SIGKILL and death.limit_hits:
        return _Finding(
            kind=ExitKind.HOST_PRESSURE,
            detail=f"the VMM was killed after reaching its memory limit {death.limit_hits} times",
        )
    return None


def _crash_by_signal(death: Death, lines: Sequence[str]) -> _Finding | None:  # noqa: ARG001
    if death.signal in EXIT_SIGNALS_OF_A_CRASH:
        name = signal.Signals(death.signal).name
        return _Finding(kind=ExitKind.VMM_CRASH, detail=f"the VMM crashed with {name}: {_words(death)}")
    return None


def _killed(death: Death, lines: Sequence[str]) -> _Finding | None:  # noqa: ARG001
    """No guest, and no daemon of ours, sends its VMM signals: what the console tells did not end it."""
    if death.signal is None:
        return None
    detail = f"the VMM was killed by a signal from outside ({signal_name(death.signal)})"
    return _Finding(kind=ExitKind.KILLED, detail=detail)


def _host_disk_full(death: Death, lines: Sequence[str]) -> _Finding | None:  # noqa: ARG001
    if any(_NO_SPACE_EVENT.search(event[:MAX_CONSOLE_CHARACTERS]) for event in death.events):
        return _Finding(kind=ExitKind.DISK_FULL, detail="the host's disk under the machine's was full")
    return None


def _panic(death: Death, lines: Sequence[str]) -> _Finding | None:
    at, why = _last(lines, _PANIC)
    if why is None:
        if any(_GUEST_PANICKED.search(event) for event in death.events):
            return _Finding(kind=ExitKind.KERNEL_PANIC, detail="the VMM reported that the guest's kernel had panicked")
        return None
    words = f"Kernel panic: {why['why']}".rstrip(": ")
    killed = _last_oom_kill(lines[: at + 1])
    # An init that was killed for memory takes the kernel along; every other panic only happened later.
    of_memory = _OOM_PANIC.search(why["why"]) or (killed and killed["pid"] == "1" and _INIT_KILLED.search(why["why"]))
    if of_memory:
        return _Finding(kind=ExitKind.GUEST_OOM, detail=words, process=killed["process"] if killed else None)
    return _Finding(kind=ExitKind.KERNEL_PANIC, detail=words)


def _guest_disk_failed(death: Death, lines: Sequence[str]) -> _Finding | None:  # noqa: ARG001
    at, found = _last(lines, _READ_ONLY)
    return None if found is None else _Finding(kind=ExitKind.DISK_FULL, detail=lines[at])


def _power_off(death: Death, lines: Sequence[str]) -> _Finding | None:
    at, found = _last(lines, _POWER_OFF)
    if found is None and not any(_GUEST_SHUTDOWN.search(event) for event in death.events):
        return None
    detail = f"the guest ended itself: {lines[at] if found else 'it shut down'}"
    killed = _last_oom_kill(lines)
    if killed is None:
        return _Finding(kind=ExitKind.POWER_OFF, detail=detail)
    before = f"; it had run out of memory before and killed {killed['process']}"
    return _Finding(kind=ExitKind.POWER_OFF, detail=detail[: MAX_DETAIL_CHARACTERS - len(before)] + before)


def _oom(death: Death, lines: Sequence[str]) -> _Finding | None:  # noqa: ARG001
    killed = _last_oom_kill(lines)
    if killed is None:
        return None
    where = "a memory group inside the guest" if killed["group"] else "the guest"
    return _Finding(
        kind=ExitKind.GUEST_OOM,
        detail=f"{where} ran out of memory and killed process {killed['pid']} ({killed['process']})",
        process=killed["process"],
    )


def _bug(death: Death, lines: Sequence[str]) -> _Finding | None:  # noqa: ARG001
    at, found = _last(lines, _BUG)
    return None if found is None else _Finding(kind=ExitKind.KERNEL_PANIC, detail=lines[at])


def _other_failure(death: Death, lines: Sequence[str]) -> _Finding | None:  # noqa: ARG001
    if death.status:
        return _Finding(kind=ExitKind.VMM_CRASH, detail=f"the VMM gave up with status {death.status}: {_words(death)}")
    return None


_RULES: tuple[Callable[[Death, Sequence[str]], _Finding | None], ...] = (
    _host_pressure,
    _crash_by_signal,
    _killed,
    _host_disk_full,
    _panic,
    _guest_disk_failed,
    _power_off,
    _oom,
    _bug,
    _other_failure,
)
"""What is sure before what is likely: the host's own facts, then how the guest went, then what had happened in it."""


def _words(death: Death) -> str:
    return printable((death.how.splitlines() or [""])[0], MAX_DETAIL_CHARACTERS)


def _last_oom_kill(lines: Sequence[str]) -> re.Match[str] | None:
    for line in reversed(lines):
        if found := _OOM_KILL.search(line) or _OOM_KILL_SHORT.search(line):
            return found
    return None


def _last(lines: Sequence[str], pattern: re.Pattern[str]) -> tuple[int, re.Match[str] | None]:
    """Give the index of the last line that fits, and how; -1 and None when there is none."""
    for index in range(len(lines) - 1, -1, -1):
        if found := pattern.search(lines[index]):
            return index, found
    return -1, None
