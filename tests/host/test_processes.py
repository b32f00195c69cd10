"""Processes found by their words."""

from __future__ import annotations

import os
import signal
import sys

from hearth.host.processes import find_by_arguments, owner_of, words_after

ROUNDS = 40


def test_a_process_is_found_from_the_moment_it_was_spawned() -> None:
    for number in range(ROUNDS):  # most of these would show no words yet
        word = f"--found-at-once={os.getpid()}-{number}"
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", "import time; time.sleep(99)", word], {})
        try:
            assert find_by_arguments([word]) == [pid]
            assert owner_of(pid) == os.getuid()
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_who_has_ended_and_is_not_buried_is_passed_over() -> None:
    pid = os.posix_spawn("/bin/true", ["true", "--not-buried", f"of-{os.getpid()}"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        assert find_by_arguments(["--not-buried", f"of-{os.getpid()}"]) == []
        assert words_after("--not-buried", beginning=f"of-{os.getpid()}") == set()
    finally:
        os.waitpid(pid, 0)
