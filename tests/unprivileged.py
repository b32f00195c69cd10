"""An ordinary user for tests: a number that nobody else has, without any right, with this project's code to run."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import hearth

FIRST_UID = 1_800_000_000
UID_COUNT = 50_000_000
"""Above what distributions hand out, below what the daemon draws VMMs' users from."""
PROBE_TIMEOUT_S = 60.0
SOURCES = Path(hearth.__path__[0]).parent


@dataclass(frozen=True, kw_only=True)
class OrdinaryUser:
    """A user; ``python`` is an interpreter that it may execute."""

    uid: int
    python: str

    @property
    def prefix(self) -> list[str]:
        """Words before a command of this user's."""
        number = str(self.uid)
        no_rights = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
        return ["setpriv", "--reuid", number, "--regid", number, *no_rights, "--"]

    def environment(self, data: Path) -> dict[str, str]:
        """Its environment, with a data directory."""
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": str(data),
            "HEARTH_DATA": str(data),
            "PYTHONPATH": os.pathsep.join([str(SOURCES), sysconfig.get_path("purelib")]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def run(self, data: Path, *words: str, timeout_s: float = 120.0) -> subprocess.CompletedProcess[bytes]:
        """Run the interpreter with arguments as this user."""
        return subprocess.run(
            [*self.prefix, self.python, *words],
            env=self.environment(data),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            cwd="/",
        )

    def processes(self) -> Iterator[tuple[int, str]]:
        """Give number and command line of its living processes."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if entry.stat().st_uid == self.uid and (words := (entry / "cmdline").read_bytes()):
                    yield int(entry.name), words.replace(b"\0", b" ").decode()
            except OSError:
                continue


def ordinary_user() -> OrdinaryUser:
    """Draw a user; skip the test where it could not read this project, as in a checkout below /root."""
    uid = FIRST_UID + secrets.randbelow(UID_COUNT)
    for python in (sys.executable, "/usr/bin/python3"):
        user = OrdinaryUser(uid=uid, python=python)
        if user.run(Path("/"), "-c", "import hearth.server.serve", timeout_s=PROBE_TIMEOUT_S).returncode == 0:
            return user
    pytest.skip(f"an ordinary user can run no Python with the sources in {SOURCES}")
