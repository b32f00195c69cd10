"""How a build runs other programs: they die with the builder, see its proxies, and their failures get names."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from hearth.errors import HearthError, NoSpace, Unavailable
from hearth.host import process

FULL = "No space left on device"
NETWORK = re.compile(r"Failed to fetch|Could not (?:resolve|connect)|Temporary failure|Unable to connect")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""A killed builder's tool must not go on writing into what the next builder removes."""
OWN_WORLD = (
    *("unshare", "--mount", "--propagation", "private"),
    *("--pid", "--mount-proc", "--kill-child", "--"),
)
"""For a tool that mounts and starts many others: no mount of its is seen outside, and all of them end with it."""
OWN_WORLD_OF_ONE = (OWN_WORLD[0], "--user", "--map-root-user", *OWN_WORLD[1:])
"""The same without root's rights: a namespace in which this user is root, and nobody else exists."""


async def run(
    argv: list[str],
    *,
    timeout_s: float,
    where: Path,
    environment: dict[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
) -> process.Completed:
    """Run a tool that writes below ``where`` and ends when this process does.

    Raises:
        NoSpace: it failed for lack of space.
        CommandFailed: it failed otherwise.
        TimedOut: it took longer than ``timeout_s`` seconds.
    """
    try:
        return await process.run(
            [*DIES_WITH_US, *argv],
            timeout_s=timeout_s,
            cwd=where,
            environment={**proxies(), **(environment or {})},
            on_line=on_line,
        )
    except process.CommandFailed as error:
        if FULL in error.output:
            raise NoSpace(
                "the disk is full",
                details=f"{where}: {error.output.strip()}",
                resolution="free some space, or choose another HEARTH_DATA",
            ) from error
        raise process.CommandFailed(argv, error.status, error.output) from error


def is_about_network(error: process.CommandFailed) -> bool:
    """Tell whether apt's words are about reaching an archive rather than about its packages or this host."""
    return NETWORK.search(error.output) is not None


def fetch_failed(brief: str, error: HearthError) -> Unavailable:
    """Tell a failed fetch in words, with the tool's own."""
    return Unavailable(
        brief,
        details=error.details.strip(),
        resolution="check the network, the proxy and apt's sources, then run it again: finished downloads are kept",
    )


def proxies() -> dict[str, str]:
    """Give the proxies this process was told to use; apt honours them too."""
    return {name: value for name in PROXY_VARIABLES if (value := os.environ.get(name))}
