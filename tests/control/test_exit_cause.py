"""Causes of death, from what Linux 6.1 prints, what QEMU reports and what the host's control groups count."""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.control.exit_cause import Death, console_lines, ended_by, explain, parse_oom_kills, printable
from hearth.model import MAX_CONSOLE_LINES, ExitKind

AT = datetime(2026, 1, 1, tzinfo=UTC)
QUIET_BOOT = "[    0.000000] Linux version 6.1.0-37-cloud-amd64 (debian-kernel@lists.debian.org)\nhearth: agent ready\n"

OOM = """[   41.118] python3 invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE), order=0, oom_score_adj=0
[   41.119] Mem-Info:
[   41.120] oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,task=python3,pid=123,uid=0
[   41.121] Out of memory: Killed process 123 (python3) total-vm:512000kB, anon-rss:201000kB, file-rss:4kB, UID:0
"""
GROUP_OOM = """[   12.003] Memory cgroup out of memory: Killed process 877 ((sd-pam)) total-vm:168272kB, anon-rss:932kB
"""
OLD_OOM = "[   12.003] Out of memory: Kill process 55 (java) score 912 or sacrifice child\n"
ODD_OOM = "[   12.003] Out of memory (oom_kill_allocating_task): Killed process 99 (stress-ng-vm) total-vm:1kB\n"
REAPED_OOM = "[   12.003] Out of memory: Killed process 7 (node)\n"
DEADLOCK = """[   77.204] Kernel panic - not syncing: System is deadlocked on memory
[   77.205] CPU: 0 PID: 1 Comm: init Not tainted 6.1.0-37-cloud-amd64 #1  Debian 6.1.140-1
[   77.206] Call Trace:
[   77.207]  panic+0x118/0x2ef
[   77.208] ---[ end Kernel panic - not syncing: System is deadlocked on memory ]---
"""
POLICY_OOM = "[ 3.1] Kernel panic - not syncing: Out of memory: system-wide panic_on_oom is enabled\n"
VFS = """[    1.502] VFS: Cannot open root device "vda" or unknown-block(0,0): error -6
[    1.503] Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)
[    1.504] ---[ end Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0) ]---
"""
INIT_KILLED = "[   50.001] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009\n"
INIT_OOM = "[   50.000] Out of memory: Killed process 1 (init) total-vm:5000kB, anon-rss:900kB\n"
OOPS = """[    9.100] BUG: kernel NULL pointer dereference, address: 0000000000000008
[    9.101] #PF: supervisor read access in kernel mode
[    9.102] Oops: 0000 [#1] PREEMPT SMP PTI
"""
OOPS_PANIC = OOPS + "[    9.103] Kernel panic - not syncing: Fatal exception in interrupt\n"
LOCKUP = "[  120.1] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [python3:77]\n"
READ_ONLY = """[   30.501] EXT4-fs error (device vda): ext4_journal_check_start:83: comm dd: Detected aborted journal
[   30.502] EXT4-fs (vda): Remounting filesystem read-only
"""
DELAYED = """[   30.5] EXT4-fs (vda): delayed block allocation failed for inode 12 at logical offset 0 with error 28
"""
POWER_DOWN = "[   99.9] reboot: Power down\n"
HALTED = "[   99.9] reboot: System halted\n"
RESTARTING = "[   99.9] reboot: Restarting system\n"
NO_SPACE = (
    '{"event": "BLOCK_IO_ERROR", "data": {"device": "", "nospace": true, "node-name": "disk0", '
    '"reason": "No space left on device", "operation": "write", "action": "stop"}}'
)
IO_ERROR = (
    '{"event": "BLOCK_IO_ERROR", "data": {"device": "", "nospace": false, "node-name": "disk0", '
    '"reason": "Input/output error", "operation": "write", "action": "report"}}'
)
SHUTDOWN = '{"event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-shutdown"}}'
PANICKED = '{"event": "GUEST_PANICKED", "data": {"action": "pause"}}'
EXITED = "QEMU exited with status 0"

OOM_KIND, PANIC, FULL = ExitKind.GUEST_OOM, ExitKind.KERNEL_PANIC, ExitKind.DISK_FULL
CRASH, PRESSURE, OFF, UNKNOWN = ExitKind.VMM_CRASH, ExitKind.HOST_PRESSURE, ExitKind.POWER_OFF, ExitKind.UNKNOWN
KILLED = ExitKind.KILLED


def ended(console: str = "", **facts: object) -> Death:
    facts = {"how": EXITED, "status": 0, **facts}
    return Death(at=AT, console=QUIET_BOOT + console, **facts)  # type: ignore[arg-type]


def signalled(number: int, console: str = "", **facts: object) -> Death:
    return ended(console, how=f"QEMU was killed by signal {number}", status=None, signal=number, **facts)


@pytest.mark.parametrize(
    ("death", "kind", "process", "words"),
    [
        # The guest's memory.
        (ended(OOM), OOM_KIND, "python3", "killed process 123 (python3)"),
        (ended(GROUP_OOM), OOM_KIND, "(sd-pam)", "memory group inside the guest"),
        (ended(OLD_OOM), OOM_KIND, "java", "process 55 (java)"),
        (ended(ODD_OOM), OOM_KIND, "stress-ng-vm", "process 99"),
        (ended(REAPED_OOM), OOM_KIND, "node", "process 7"),
        (ended(OOM + GROUP_OOM + OOM), OOM_KIND, "python3", "123"),
        (ended(OOM + DEADLOCK), OOM_KIND, "python3", "System is deadlocked on memory"),
        (ended(DEADLOCK), OOM_KIND, None, "System is deadlocked on memory"),
        (ended(OOM + POLICY_OOM), OOM_KIND, "python3", "panic_on_oom"),
        (ended(INIT_OOM + INIT_KILLED), OOM_KIND, "init", "Attempted to kill init"),
        (ended(OOM, status=None), OOM_KIND, "python3", "123"),
        # Its kernel.
        (ended(VFS), PANIC, None, "VFS: Unable to mount root fs"),
        (ended(INIT_KILLED), PANIC, None, "Attempted to kill init! exitcode=0x00000009"),
        (ended(OOM + INIT_KILLED), PANIC, None, "Attempted to kill init"),
        (ended(OOM + VFS), PANIC, None, "VFS"),
        (ended(OOPS_PANIC), PANIC, None, "Fatal exception in interrupt"),
        (ended(OOPS), PANIC, None, "Oops: 0000"),
        (ended("[ 1.0] Kernel panic - not syncing\n"), PANIC, None, "Kernel panic"),
        (ended(events=[PANICKED]), PANIC, None, "kernel had panicked"),
        (ended(LOCKUP), UNKNOWN, None, EXITED),
        # The disk.
        (ended(events=[NO_SPACE]), FULL, None, "host's disk"),
        (ended(VFS, events=[NO_SPACE]), FULL, None, "host's disk"),
        (ended(events=["BLOCK_IO_ERROR device=vda operation=write reason=ENOSPC"]), FULL, None, "host's disk"),
        (ended(events=[IO_ERROR]), UNKNOWN, None, EXITED),
        (ended(READ_ONLY), FULL, None, "Remounting filesystem read-only"),
        (ended(DELAYED + POWER_DOWN), FULL, None, "delayed block allocation failed"),
        (ended(READ_ONLY + VFS), PANIC, None, "VFS"),
        # The guest's own will.
        (ended(POWER_DOWN), OFF, None, "reboot: Power down"),
        (ended(HALTED), OFF, None, "System halted"),
        (ended(RESTARTING), OFF, None, "Restarting system"),
        (ended(events=[SHUTDOWN]), OFF, None, "shut down"),
        (ended(OOM + POWER_DOWN), OFF, None, "killed python3"),
        (ended(OOPS + POWER_DOWN), OFF, None, "Power down"),
        # The VMM and the host.
        (signalled(signal.SIGSEGV, OOM + POWER_DOWN), CRASH, None, "SIGSEGV"),
        (signalled(signal.SIGABRT), CRASH, None, "SIGABRT"),
        (signalled(signal.SIGSYS), CRASH, None, "SIGSYS"),
        (signalled(signal.SIGKILL, OOM, oom_kills=1), PRESSURE, None, "host's kernel killed the VMM"),
        (signalled(signal.SIGKILL, limit_hits=12), PRESSURE, None, "12 times"),
        (signalled(signal.SIGKILL), KILLED, None, "killed by a signal from outside (SIGKILL)"),
        (signalled(signal.SIGKILL, OOM + POWER_DOWN), KILLED, None, "killed by a signal from outside (SIGKILL)"),
        (signalled(signal.SIGTERM), KILLED, None, "killed by a signal from outside (SIGTERM)"),
        (signalled(200), KILLED, None, "killed by a signal from outside (signal 200)"),
        (ended(oom_kills=3, limit_hits=9), UNKNOWN, None, EXITED),
        (ended(status=1, how="QEMU exited with status 1"), CRASH, None, "status 1"),
        (ended(VFS, status=1), PANIC, None, "VFS"),
        # Little or nothing known.
        (ended(), UNKNOWN, None, EXITED),
        (ended(status=None, how="QEMU ended; last console lines:\nall fine"), UNKNOWN, None, "QEMU ended; last"),
        (Death(how="", at=AT), UNKNOWN, None, "without a word"),
    ],
)
def test_an_end_is_explained(death: Death, kind: ExitKind, process: str | None, words: str) -> None:
    cause = explain(death)
    assert (cause.kind, cause.process, cause.at) == (kind, process, AT)
    assert words in cause.detail
    assert "\n" not in cause.detail
    assert "]---" not in cause.detail


def test_the_last_fifty_lines_of_the_console_are_kept() -> None:
    cause = explain(ended("".join(f"line {number}\n\n" for number in range(80)) + OOM))
    assert len(cause.console) == MAX_CONSOLE_LINES
    assert cause.console[-1].startswith("[   41.121] Out of memory: Killed process 123")
    assert cause.console[0] == "line 34"


def test_an_end_of_our_own_making_keeps_the_console_too() -> None:
    cause = ended_by(ExitKind.TTL, "its time to live of 60 s was over", AT, console=QUIET_BOOT)
    assert (cause.kind, cause.detail) == (ExitKind.TTL, "its time to live of 60 s was over")
    assert cause.console[-1] == "hearth: agent ready"


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("\x1b[31;1mred\x1b[0m \x1b[2Jgone", "red gone"),
        ("bell\x07 and\x00 nul\x9b", "bell and nul"),
        ("ta\tb", "ta b"),
        ("r\u202etl and f\u00fcnf", "rtl and fnf"),
        ("x" * 999, "x" * 240),
    ],
)
def test_nothing_of_a_console_can_speak_to_a_terminal(raw: str, clean: str) -> None:
    assert printable(raw, 240) == clean
    assert console_lines(raw) == [clean]


@given(st.text(), st.text(), st.lists(st.text(), max_size=3))
def test_whatever_a_guest_writes_the_cause_is_bounded_and_printable(how: str, console: str, events: list[str]) -> None:
    hostile = console + "\nOut of memory: Killed process 9 (" + console + "\x1b[2J) total-vm:1\n" + console
    cause = explain(Death(how=how, at=AT, console=hostile, events=events))
    texts = [cause.detail, cause.process or "", *cause.console]
    assert all(text.isascii() and (text.isprintable() or not text) for text in texts)
    assert max(len(text) for text in texts) <= 400
    assert len(cause.console) <= MAX_CONSOLE_LINES


@pytest.mark.parametrize(
    "flood",
    [
        "Out of memory: Killed process 1 (" * 4000,
        "Out of memory" * 10_000,
        "EXT4-fs" * 20_000,
        "BLOCK_IO_ERROR" * 10_000,
        "\x1b[" + "1;" * 60_000,
        "\x1b[" * 60_000,
        "Kernel panic - not syncing" * 5000,
        "a\n" * 60_000,
    ],
)
def test_a_flood_is_judged_in_a_moment(flood: str) -> None:
    began = time.process_time()
    explain(Death(how=flood, at=AT, console=flood, events=[flood]))
    assert time.process_time() - began < 5  # some hundredths; with the square of the length it would be minutes


@pytest.mark.parametrize(
    ("text", "kills"),
    [
        ("low 0\nhigh 0\nmax 34\noom 2\noom_kill 1\noom_group_kill 0\n", 1),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", 3),
        ("oom_kill_disable 0\nunder_oom 0\n", 0),
        ("", 0),
        ("oom_kill many\n", 0),
    ],
    ids=["version 2", "version 1", "before Linux 4.13", "empty", "nonsense"],
)
def test_kills_are_read_from_a_control_group(text: str, kills: int) -> None:
    assert parse_oom_kills(text) == kills
