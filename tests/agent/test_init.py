"""Init outside a machine: it must not touch the system it runs on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_init_refuses_to_run_as_anything_but_pid_1() -> None:
    before = Path("/proc/mounts").read_text()
    done = subprocess.run([sys.executable, "-m", "hearth.agent.init"], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"only PID 1" in done.stderr
    assert Path("/proc/mounts").read_text() == before
