"""Where hearth keeps things. Apart from the settings, since every command of the command line waits for this."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from hearth.errors import InvalidInput

SOCKET_PATH_MAX = 104
"""Longest path of a Unix socket that works on Linux and macOS, in bytes."""


@dataclass(frozen=True, kw_only=True)
class DataDirectory:
    """The one directory under which everything mutable lives; every path of it is spelled here and nowhere else."""

    root: Path

    @property
    def api_socket(self) -> Path:
        return self.root / "hearth.sock"

    @property
    def admin_key(self) -> Path:
        return self.root / "admin.key"

    @property
    def secret(self) -> Path:
        """What agents' tokens are derived from."""
        return self.root / "agent.secret"

    @property
    def host_id(self) -> Path:
        """Whose sandboxes are whose, where several hosts share a database."""
        return self.root / "host.id"

    @property
    def master_key(self) -> Path:
        """What users' secrets are sealed with, unless an operator keeps it elsewhere."""
        return self.root / "master.key"

    @property
    def lock(self) -> Path:
        return self.root / "daemon.lock"

    @property
    def database(self) -> Path:
        return self.root / "hearth.db"

    @property
    def restoring(self) -> Path:
        """Here while a backup's parts are put in place: without all of them no daemon may start."""
        return self.root / "restore.incomplete"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    @property
    def execs(self) -> Path:
        """Logs of commands' output, a directory for each sandbox."""
        return self.root / "execs"

    @property
    def snapshots(self) -> Path:
        """Memory and frozen disks: templates, stopped sandboxes, checkpoints; one directory each, by id."""
        return self.root / "snapshots"

    @property
    def volumes(self) -> Path:
        """Volumes and who has which."""
        return self.root / "volumes"

    @property
    def golden_images(self) -> Path:
        """The cache of images that volumes are filled from."""
        return self.root / "golden"

    @property
    def golden_volumes(self) -> Path:
        """Volumes that were filled from them, where they are files."""
        return self.root / "provisioned"

    @property
    def libvirt_pools(self) -> Path:
        """What is known of libvirt's pools in which volumes were made; a directory each."""
        return self.root / "libvirt"

    @property
    def verdicts(self) -> Path:
        """Cached findings about this host (the accelerator probe)."""
        return self.root / "verdicts"

    @property
    def mark(self) -> Path:
        """What tells this directory's machines from those of a copy of it; see ``hearth.host.directory``."""
        return self.root / "mark.json"

    def machine(self, machine_id: str) -> Path:
        return self.machines / machine_id

    def snapshot(self, snapshot_id: str) -> Path:
        return self.snapshots / snapshot_id

    def check(self) -> None:
        """Refuse a root whose socket paths would be too long, before anything is made.

        Raises:
            InvalidInput: names HEARTH_DATA.
        """
        longest = self.machine("sb-" + "x" * 16) / "qmp.sock"
        size = len(os.fsencode(longest))
        if size > SOCKET_PATH_MAX:
            raise InvalidInput(
                "the data directory's path is too long",
                details=f"HEARTH_DATA {self.root} makes socket paths of {size} bytes, at most {SOCKET_PATH_MAX} work",
                resolution="choose a shorter HEARTH_DATA",
                field="HEARTH_DATA",
            )


def config_directory(environment: Mapping[str, str], *, is_root: bool) -> Path:
    """Tell where the daemon's configuration is looked for: /etc/hearth for root, else in XDG's configuration home."""
    if is_root:
        return Path("/etc/hearth")
    home = environment.get("HOME", "/")
    return Path(environment.get("XDG_CONFIG_HOME") or f"{home}/.config") / "hearth"


def data_in_file(environment: Mapping[str, str], *, is_root: bool) -> Path | None:
    """Give the data directory that the configuration's file names; None where it names none, or cannot be used.

    The daemon says what is wrong with its file; who only looks for the daemon goes on to the usual place.
    """
    named = environment.get("HEARTH_CONFIG")
    path = Path(named).expanduser() if named else config_directory(environment, is_root=is_root) / "hearth.toml"
    try:
        content = path.read_bytes()
        if not any(line.lstrip().startswith(b"data") for line in content.splitlines()):
            return None
        data = import_module("tomllib").loads(content.decode()).get("data")  # 5 ms, which only those with one wait for
    except (OSError, ValueError):
        return None
    return Path(data).expanduser() if isinstance(data, str) and data.startswith(("/", "~")) else None


def default_data_root(environment: Mapping[str, str], *, is_root: bool) -> Path:
    """Tell the data directory: ``HEARTH_DATA``, else ``data`` in the configuration's file, else /var/lib/hearth for
    root, else XDG's data home.
    """
    if chosen := environment.get("HEARTH_DATA"):
        return Path(chosen).expanduser().absolute()
    if (configured := data_in_file(environment, is_root=is_root)) is not None:
        return configured
    if is_root:
        return Path("/var/lib/hearth")
    home = environment.get("HOME", "/")
    return Path(environment.get("XDG_DATA_HOME") or f"{home}/.local/share") / "hearth"


def load_data_directory() -> DataDirectory:
    """Give this process's data directory from its environment."""
    return DataDirectory(root=default_data_root(os.environ, is_root=os.geteuid() == 0))
