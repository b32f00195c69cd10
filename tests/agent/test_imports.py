from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hearth

SOURCES = Path(hearth.__file__).parent.parent
LIST_IMPORTED = "import sys; sys.path.append(sys.argv[1]); import hearth.agent.init; print(*sys.modules)"


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """What a bare interpreter has imported once it has imported PID 1."""
    command = [sys.executable, "-ISB", "-c", LIST_IMPORTED, str(SOURCES)]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize("module", ["dataclasses", "typing", "inspect", "ast", "asyncio", "subprocess", "pathlib"])
def test_the_agent_does_without_modules_that_are_slow_to_import(imported: set[str], module: str) -> None:
    assert "hearth.agent.process" in imported
    assert module not in imported
