"""What this process may do beyond what every user may: root's rights one by one, as the kernel counts them."""

from __future__ import annotations

from pathlib import Path

CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
}
"""linux/capability.h; those that the daemon works with."""
FOR_FULL_MODE = frozenset(CAPABILITIES)
"""To make networks of this host's kernel, and VMMs that are users of their own in them."""
FOR_USERS = frozenset(CAPABILITIES) - {"CAP_NET_ADMIN"}
"""To give processes a user of their own, and to look after them all the same."""


def missing_in(status: str, wanted: frozenset[str]) -> frozenset[str]:
    """Tell which of the rights ``wanted`` the effective set in the text of /proc/self/status lacks."""
    mask = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return frozenset(name for name in wanted if not mask >> CAPABILITIES[name] & 1)


def missing(wanted: frozenset[str]) -> frozenset[str]:
    """Tell which of the rights ``wanted`` this process lacks."""
    return missing_in(Path("/proc/self/status").read_text(), wanted)


def may_give_users() -> bool:
    """Tell whether processes can be started as users of their own; without that they run as we do."""
    return not missing(FOR_USERS)
