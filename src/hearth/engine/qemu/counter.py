"""The host's counter as machines are told of it: measured once and kept, so that snapshots outlive a daemon.

Two measurements never agree to the last digit, and an emulated machine's shape holds the figure.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from hearth.host import files
from hearth.host.tsc import tsc_khz

log = structlog.get_logger(__name__)

FILE = "tsc-khz"
SAME = 0.001
"""Share by which two measurements of one counter may differ; in fact they differ by a tenth of that."""


def steady_tsc_khz(directory: Path) -> int | None:
    """Give the counter's kHz as kept in ``directory``; measured anew where none is kept or this is another host's.

    Blocking, for some 50 ms the first time in a process. None where there is no such counter.
    """
    measured = tsc_khz()
    if measured is None:
        return None
    kept = _read(directory / FILE)
    if kept is not None and abs(kept - measured) <= SAME * measured:
        return kept
    if kept is not None:
        log.warning("this host's counter is another one: what sleeps here cannot wake", before=kept, now=measured)
    directory.mkdir(parents=True, exist_ok=True)
    files.write_atomic(directory / FILE, f"{measured}\n".encode())
    return measured


def _read(path: Path) -> int | None:
    try:
        return int(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
