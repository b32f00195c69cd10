"""The score that the out-of-memory killer goes by: what a child has from its first moment on."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import os, threading
from hearth.agent.shield import SHIELD
from hearth.agent.spawn import Command, spawn

def score():
    with open("/proc/self/oom_score_adj") as file:
        return file.read().strip()

null = os.open("/dev/null", os.O_RDWR)
read, write = os.pipe()
SHIELD.raise_up(300)
SHIELD.raise_up(500)  # which needs no privilege, unlike -1000
command = Command(
    argv=["/bin/sh", "-c", "(cat /proc/self/oom_score_adj) & cat /proc/self/oom_score_adj; wait"],
    environment={"PATH": "/usr/bin:/bin"}, directory="/",
)

def start():
    for _ in range(10):
        os.waitpid(spawn(command, null, write, null), 0)

threads = [threading.Thread(target=start) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
os.close(write)
children = b""
while piece := os.read(read, 65536):
    children += piece
print(score(), children.split().count(b"0"), len(children.split()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's killer")
def test_children_and_theirs_have_the_ordinary_score_from_the_start_and_the_agent_keeps_its_own() -> None:
    told = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["500", "80", "80"], told.stderr
