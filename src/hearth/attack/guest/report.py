"""How the prober speaks: one JSON object a line, from any thread."""

from __future__ import annotations

import json
import sys
import threading

_LOCK = threading.Lock()


def say(**fields: object) -> None:
    """Write a line at once."""
    with _LOCK:
        sys.stdout.write(json.dumps(fields) + "\n")
        sys.stdout.flush()


def outcome(probe: str, word: str, detail: str = "", **more: object) -> None:
    """Tell how a probe went."""
    say(probe=probe, outcome=word, detail=detail[:300], **more)
