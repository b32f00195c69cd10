"""What a machine does and has, from /proc: the processor time of its programs, and its memory."""

from __future__ import annotations

import os
import time

from hearth.agent.procfs import read_bytes
from hearth.wire.messages import MemoryInfo

_USER, _NICE, _SYSTEM, _IDLE, _IOWAIT, _IRQ, _SOFTIRQ = range(7)
_WORK = (_USER, _NICE, _SYSTEM, _IRQ, _SOFTIRQ)


def cpu_ms(proc: int) -> int:
    """Give the milliseconds all processors together have worked since boot, without what this process used.

    Idling, waiting for disks and time that the host took (steal) are no work. Source: proc_stat(5), whose ticks are
    1/SC_CLK_TCK of a second.

    Raises:
        OSError, ValueError: /proc/stat is not what it should be.
    """
    first = read_bytes(proc, "stat").split(b"\n", 1)[0].split()
    if first[:1] != [b"cpu"] or len(first) <= _SOFTIRQ + 1:
        raise ValueError("no line 'cpu' in /proc/stat")
    ticks = sum(int(first[1 + column]) for column in _WORK)
    return max(0, ticks * 1000 // os.sysconf("SC_CLK_TCK") - int(time.process_time() * 1000))


def memory(proc: int) -> MemoryInfo:
    """Give how much memory there is and how much of it programs could still get (MemAvailable of proc_meminfo(5)).

    Raises:
        OSError, ValueError, KeyError: /proc/meminfo is not what it should be.
    """
    kib: dict[bytes, int] = {}
    for line in read_bytes(proc, "meminfo").splitlines():
        name, _, rest = line.partition(b":")
        if name in (b"MemTotal", b"MemAvailable"):
            kib[name] = int(rest.split()[0])
    return MemoryInfo(total_mib=kib[b"MemTotal"] // 1024, available_mib=kib[b"MemAvailable"] // 1024)
