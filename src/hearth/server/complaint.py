"""How programs of this host say on stderr that something did not go."""

from __future__ import annotations

import json
import sys

from hearth.errors import HearthError


def complain(error: HearthError, *, as_json: bool = False) -> int:
    """Say what is wrong, what exactly, and what to do; as JSON one object in one line. Gives the exit status."""
    if as_json:
        sys.stderr.write(json.dumps(error.told()) + "\n")
        return 1
    sys.stderr.write(f"hearth: {error.brief}\n")
    for line in filter(None, (error.details, error.resolution)):
        sys.stderr.write(f"  {line}\n")
    return 1
