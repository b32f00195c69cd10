"""How short of memory the host is: real texts, every level from both sides, hosts that tell less."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.host.pressure import PressureLevel, Stall, judge, parse_stall, read_memory

NONE, SOME, HIGH = PressureLevel.NONE, PressureLevel.SOME, PressureLevel.HIGH
QUIET = """some avg10=0.00 avg60=0.12 avg300=1.50 total=189000
full avg10=0.00 avg60=0.03 avg300=0.80 total=94000
"""
STALLED = """some avg10=63.42 avg60=31.00 avg300=9.00 total=99189000
full avg10=12.05 avg60=8.10 avg300=2.00 total=12094000
"""
MEMINFO = """MemTotal:       {total} kB
MemFree:          102400 kB
MemAvailable:   {available} kB
SwapTotal:       4194304 kB
SwapFree:        2097152 kB
HugePages_Total:       0
"""


@pytest.mark.parametrize(
    ("text", "stall"),
    [
        (QUIET, Stall(some_percent=0.0, full_percent=0.0)),
        (STALLED, Stall(some_percent=63.42, full_percent=12.05)),
        ("some avg10=5.00 avg60=0.00 avg300=0.00 total=7\n", Stall(some_percent=5.0, full_percent=0.0)),
        ("", None),
        ("\n", None),
        ("some avg60=1.00\n", None),
        ("some avg10=much\n", None),
        ("full avg10=3.00\n", None),
    ],
    ids=["quiet", "stalled", "without full", "empty", "blank", "without avg10", "no number", "without some"],
)
def test_the_last_ten_seconds_are_read(text: str, stall: Stall | None) -> None:
    assert parse_stall("\n".join(line for line in text.split("\n") if line)) == stall


@pytest.mark.parametrize(
    ("some", "full", "available", "level"),
    [
        (0.0, 0.0, 0.5, NONE),
        (9.9, 0.0, 0.5, NONE),
        (10.0, 0.0, 0.5, SOME),
        (39.9, 4.9, 0.5, SOME),
        (40.0, 0.0, 0.5, HIGH),
        (5.0, 5.0, 0.5, HIGH),
        (0.0, 0.0, 0.05, NONE),
        (0.0, 0.0, 0.049, SOME),
        (0.0, 0.0, 0.019, HIGH),
    ],
)
def test_waiting_and_what_is_left_make_the_level(
    some: float, full: float, available: float, level: PressureLevel
) -> None:
    assert judge(Stall(some_percent=some, full_percent=full), available) is level


@pytest.mark.parametrize(
    ("available", "level"), [(0.5, NONE), (0.15, NONE), (0.149, SOME), (0.05, SOME), (0.049, HIGH), (0.0, HIGH)]
)
def test_without_word_of_waiting_what_is_left_counts_earlier(available: float, level: PressureLevel) -> None:
    assert judge(None, available) is level


def host(directory: Path, *, psi: str | None, available: int, total: int = 1_024_000) -> PressureLevel:
    meminfo = directory / "meminfo"
    meminfo.write_text(MEMINFO.format(total=total, available=available))
    if psi is not None:
        (directory / "memory").write_text(psi)
    memory = read_memory(psi=directory / "memory", meminfo=meminfo)
    assert (memory.total_mib, memory.available_mib) == (total // 1024, available // 1024)
    assert memory.swap_free_mib == 2048
    return memory.level


def test_a_host_is_read_from_its_files(tmp_path: Path) -> None:
    assert host(tmp_path, psi=QUIET, available=102_400) is NONE
    assert host(tmp_path, psi=STALLED, available=102_400) is HIGH


def test_a_host_that_does_not_tell_of_waiting_falls_back_to_what_is_left(tmp_path: Path) -> None:
    assert host(tmp_path, psi=None, available=102_400) is SOME
    # A directory cannot be read as a file, as the real one cannot be on a kernel started with psi=0.
    (tmp_path / "memory").mkdir()
    assert host(tmp_path, psi=None, available=512_000) is NONE


def test_a_host_without_swap_has_none_free(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 2048000 kB\nMemAvailable: 1024000 kB\n")
    assert read_memory(psi=tmp_path / "none", meminfo=meminfo).swap_free_mib == 0


def test_this_host_can_be_read() -> None:
    memory = read_memory()
    assert 0 < memory.available_mib <= memory.total_mib
    assert memory.swap_free_mib >= 0
