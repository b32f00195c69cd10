"""New keys as text: the secret alone on stdout, so that it can be piped; what to know about it on stderr."""

from __future__ import annotations

import sys
from typing import Any

from hearth.cli.show import show_json


def show_secret(secret: str, whole: Any, *, json: bool) -> int:
    """Print a new key's secret, which nobody can show again; as JSON all about it."""
    if json:
        show_json(whole)
        return 0
    print(secret, flush=True)
    if sys.stdout.isatty():
        sys.stderr.write("This is shown once: keep it, or make another key.\n")
    return 0
