"""Where the provisioner's volumes are: in a lab, or on this host where somebody points the suite at own services."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from hearth.sdk.results import Result

COMMAND_S = 120.0
PREFIX = "TEST_"
LONG = "HEARTH_LONG"
"""Says that tests which take minutes are wanted, too: set by ``make integration-test``."""
URL, TOKEN = "TEST_PROVISIONER_URL", "TEST_PROVISIONER_TOKEN"
LAB_URL, LAB_TOKEN, LAB_SANDBOX = "TEST_LAB_URL", "TEST_LAB_TOKEN", "TEST_LAB_SANDBOX"
"""The daemon that has the lab's sandbox, the key for it, the sandbox: written by ``make integration-up``."""


class Site(Protocol):
    """Runs commands as root."""

    def run(self, *words: str, timeout_s: float = COMMAND_S, stdin: bytes | None = None) -> str: ...

    def tried(self, *words: str, timeout_s: float = COMMAND_S, stdin: bytes | None = None) -> Result: ...

    def shell(self, script: str, timeout_s: float = COMMAND_S) -> str: ...


class Here:
    """This host."""

    def run(self, *words: str, timeout_s: float = COMMAND_S, stdin: bytes | None = None) -> str:
        """Run a command and give its output.

        Raises:
            CommandFailed: its status is not 0.
        """
        return self.tried(*words, timeout_s=timeout_s, stdin=stdin).check().stdout

    def tried(self, *words: str, timeout_s: float = COMMAND_S, stdin: bytes | None = None) -> Result:
        """Run a command; any status is a result."""
        done = subprocess.run(words, input=stdin or b"", capture_output=True, timeout=timeout_s, check=False)
        return Result(exit_code=done.returncode, stdout_bytes=done.stdout, stderr_bytes=done.stderr)

    def shell(self, script: str, timeout_s: float = COMMAND_S) -> str:
        """Run a shell script and give its output."""
        return self.run("sh", "-euc", script, timeout_s=timeout_s)


def read_settings(file: Path) -> dict[str, str]:
    """Read the ``TEST_*`` lines of an environment file; of one that is not there, none."""
    if not file.is_file():
        return {}
    return dict(_settings(file.read_text()))


def _settings(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, found, value = line.strip().removeprefix("export ").partition("=")
        if found and name.startswith(PREFIX):
            yield name, value.strip().strip("\"'")


def has_own_services(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether somebody points the suite at a provisioner that is not one of our labs."""
    return bool(environment.get(URL)) and not environment.get(LAB_URL)
