"""Kills for want of memory in the kernel's log, and what only looks like one."""

from __future__ import annotations

import socket

import pytest

from hearth.agent.kernel_log import MAX_KILLS, KernelLog, parse_kill
from hearth.wire.messages import OomKill

TEXT = "Killed process 77 (eater) total-vm:300000kB, anon-rss:200000kB, file-rss:4kB, UID:1000 oom_score_adj:0"
KILL = OomKill(process="eater", pid=77, seconds=8.25)


@pytest.mark.parametrize(
    ("record", "kill"),
    [
        (f"3,812,8250000,-;Out of memory: {TEXT}\n", KILL),
        (f"3,812,8250000,-,caller=T1;Memory cgroup out of memory: {TEXT}\n SUBSYSTEM=x\n", KILL),
        (f"3,812,8250000,-;Out of memory (oom_kill_allocating_task): {TEXT}", KILL),
        (f"11,812,8250000,-;Out of memory: {TEXT}\n", None),  # a program's own words: facility 1
        (f"3,812,8250000,-;eater: Out of memory: {TEXT}\n", None),
        ("3,812,8250000,-;Out of memory and no killable processes...\n", None),
        ("3,812,x,-;Out of memory: " + TEXT, None),
        ("3;Out of memory: " + TEXT, None),
        ("3,812,8250000,-;Out of memory: Killed process x (eater) total-vm:1kB", None),
        ("3,812,8250000,-;Out of memory: Killed process", None),
        ("", None),
        ("x;y;z", None),
    ],
)
def test_a_record_of_the_kernel_is_a_kill_and_nobody_elses_is(record: str, kill: OomKill | None) -> None:
    assert parse_kill(record.encode()) == kill


@pytest.mark.parametrize("name", ["a) total-vm:", "(x", ") (y)", r"\x1b[2J", "two words", ""])
def test_a_name_may_hold_anything(name: str) -> None:
    record = f"3,1,1000000,-;Out of memory: Killed process 5 ({name}) total-vm:1kB, anon-rss:1kB\n"
    assert parse_kill(record.encode()) == OomKill(process=name, pid=5, seconds=1.0)


def test_looks_go_on_where_the_last_one_stopped_and_keep_the_last_kills() -> None:
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # records as /dev/kmsg gives them
    with ours, kernel:
        ours.setblocking(False)
        log = KernelLog(ours.fileno())
        assert log.oom_kills() == []
        for pid in range(1, MAX_KILLS + 4):
            kernel.send(b"6,1,1,-;eth0: link up\n")
            kernel.send(b"3,1,1000000,-;Out of memory: Killed process %d (a) total-vm:1kB\n" % pid)
        assert [kill.pid for kill in log.oom_kills()] == list(range(4, MAX_KILLS + 4))
        assert len(log.oom_kills()) == MAX_KILLS
        kernel.send(b"3,1,1000000,-;Out of memory: Killed process 999 (a) total-vm:1kB\n")
        assert [kill.pid for kill in log.oom_kills()][-2:] == [MAX_KILLS + 3, 999]
