"""How fast this host's time stamp counter runs, measured: guests that are told need not calibrate.

Under emulation a guest reads the host's counter; its own calibration against an emulated timer fails or hangs on a
busy host (kernel parameters ``tsc_early_khz`` and ``lpj`` take its place).
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import statistics
import time
from collections.abc import Callable
from functools import cache

# rdtsc; shl rdx, 32; or rax, rdx; ret
_READ_COUNTER = bytes.fromhex("0f31 48c1e220 4809d0 c3")
_SAMPLES = 5
_SAMPLE_S = 0.01
_READINGS = 16


@cache
def tsc_khz() -> int | None:
    """Measure the counter against CLOCK_MONOTONIC_RAW: kHz, or None where there is no x86-64 counter to read.

    Takes about 50 ms the first time, and the processor need not be ours alone: see ``_read``.
    """
    if platform.machine() != "x86_64":
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    page.write(_READ_COUNTER)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    read_counter = ctypes.CFUNCTYPE(ctypes.c_uint64)(address)
    return round(statistics.median(_sample(read_counter) for _ in range(_SAMPLES)))


def _sample(read_counter: Callable[[], int]) -> float:
    started_ns, first = _read(read_counter)
    time.sleep(_SAMPLE_S)
    ended_ns, last = _read(read_counter)
    return float(last - first) * 1e6 / (ended_ns - started_ns)


def _read(read_counter: Callable[[], int]) -> tuple[float, int]:
    """Give a moment, in ns, and the counter at it.

    Whoever is kept off the processor between both readings pairs what does not belong together, and 10 us are a
    thousandth of a sample: of several readings the one counts around which least time went by.
    """
    found = []
    for _ in range(_READINGS):
        before_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        count = read_counter()
        after_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        found.append((after_ns - before_ns, (before_ns + after_ns) / 2, count))
    _, moment_ns, count = min(found)
    return moment_ns, count
