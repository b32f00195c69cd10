"""Runs a subcommand of ``python -m hearth.server`` and reads the lines it prints."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence

from hearth.errors import HostUnfit


def lines_of(words: Sequence[str]) -> Iterator[bytes]:
    """Give the subcommand's lines as they come; what it says on stderr goes to ours.

    Raises:
        HostUnfit: it failed without a line.
    """
    said = False
    with subprocess.Popen([sys.executable, "-m", "hearth.server", *words], stdout=subprocess.PIPE) as process:
        if process.stdout is None:
            raise AssertionError("stdout is piped")
        for line in process.stdout:
            said = True
            yield line
    if process.returncode != 0 and not said:
        raise HostUnfit(f"'{words[0]}' did not come to its end", resolution="see the message above")
