"""The daemon's other subcommands: the CLI becomes them, or reads what they print."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn


def become(module: str, words: Sequence[str]) -> NoReturn:
    """Replace this process by ``python -m module``: signals and exit status are then its own."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, *words])  # noqa: S606 - no shell is the point
