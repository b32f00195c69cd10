"""What apt knows and where it keeps that: the system's own, or for a user who may not write there, lists beside it."""

from __future__ import annotations

import os
from pathlib import Path

SETTINGS = "apt.conf"


class AptState:
    """apt's state as this user may use it: root the system's, others read that, until they fetch lists of their own.

    Args:
        root: a directory for what a user without root's rights keeps.
    """

    def __init__(self, root: Path, *, is_root: bool | None = None) -> None:
        self._root = root
        self._is_root = os.geteuid() == 0 if is_root is None else is_root

    def environment(self) -> dict[str, str]:
        """Give what apt's programs are told; see apt.conf(5), ``APT_CONFIG``."""
        if self._is_root:
            return {}
        self._root.mkdir(parents=True, exist_ok=True)
        # Two of ours never meet: each works in a directory of its own. The system's locks are root's.
        lines = ['Debug::NoLocking "true";']
        if (self._root / "lists").is_dir():
            lines += [
                f'Dir::State "{self._root}";',
                f'Dir::State::lists "{self._root}/lists";',
                'Dir::State::status "/var/lib/dpkg/status";',
                f'Dir::Cache "{self._root}/cache";',
            ]
        settings = self._root / f"{SETTINGS}.{os.getpid()}"
        settings.write_text("".join(f"{line}\n" for line in lines))
        settings.replace(self._root / SETTINGS)
        return {"APT_CONFIG": str(self._root / SETTINGS)}

    def begin_own(self) -> None:
        """Make room for lists of this user's own, which count from now on; root needs none."""
        if not self._is_root:
            for name in ("lists/partial", "cache/archives/partial"):
                (self._root / name).mkdir(parents=True, exist_ok=True)
