"""Processor time and memory, from files as Linux writes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hearth.agent.meters import cpu_ms, memory
from hearth.wire.messages import MemoryInfo

Write = Callable[[str, str], int]


@pytest.fixture
def proc(tmp_path: Path) -> Iterator[Write]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)

    def write(name: str, text: str) -> int:
        (tmp_path / name).write_text(text)
        return descriptor

    yield write
    os.close(descriptor)


def test_work_is_what_neither_idles_nor_waits_nor_is_taken_by_the_host(proc: Write) -> None:
    ticks = 10**9  # so much that this process's own time is seen to be taken off, and is little
    stat = proc("stat", f"cpu  {ticks} 100 1000 7 8 10 20 999 500 600\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    work_ms = (ticks + 100 + 1000 + 10 + 20) * 1000 // os.sysconf("SC_CLK_TCK")
    assert work_ms - 3_600_000 < cpu_ms(stat) < work_ms


def test_a_machine_in_which_only_the_agent_worked_has_not_worked(proc: Write) -> None:
    assert cpu_ms(proc("stat", "cpu  0 0 0 7 8 0 0 0 0 0\n")) == 0


@pytest.mark.parametrize("text", ["", "cpu\n", "cpu  1 2 3\n", "cpu0 1 2 3 4 5 6 7 8 9 10\n", "cpu  a b c d e f g h\n"])
def test_another_stat_is_an_error(proc: Write, text: str) -> None:
    with pytest.raises(ValueError, match=r"cpu|invalid literal"):
        cpu_ms(proc("stat", text))


def test_memory_is_told_in_mebibytes(proc: Write) -> None:
    text = "MemTotal:         262144 kB\nMemFree:            1024 kB\nMemAvailable:     131080 kB\n"
    assert memory(proc("meminfo", text)) == MemoryInfo(total_mib=256, available_mib=128)


def test_the_systems_own_files_are_read() -> None:
    descriptor = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert cpu_ms(descriptor) > 0
        told = memory(descriptor)
        assert 0 < told.available_mib <= told.total_mib
    finally:
        os.close(descriptor)
