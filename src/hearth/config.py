"""Where hearth keeps things and what it was told: flag > environment > default, read once at the edge."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hearth.errors import InvalidInput
from hearth.quota import DEFAULT_QUOTAS, Quotas
from hearth.rates import DEFAULT_RATES, ApiRates

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


def default_data_root(environment: Mapping[str, str], *, is_root: bool) -> Path:
    """Tell the data directory: ``HEARTH_DATA``, else /var/lib/hearth for root, else XDG's data home."""
    if chosen := environment.get("HEARTH_DATA"):
        return Path(chosen).expanduser().absolute()
    if is_root:
        return Path("/var/lib/hearth")
    home = environment.get("HOME", "/")
    return Path(environment.get("XDG_DATA_HOME") or f"{home}/.local/share") / "hearth"


def load_data_directory() -> DataDirectory:
    """Give this process's data directory from its environment."""
    return DataDirectory(root=default_data_root(os.environ, is_root=os.geteuid() == 0))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an operator may choose; the defaults live here and nowhere else. Times in seconds."""

    engine: str = "qemu"
    """``qemu``, or ``local``: processes of this host without isolation, for development."""
    boot_timeout_s: float = 60.0
    """From the VMM's start to the agent's first answer; an emulated guest on a busy host is slow."""
    min_free_mib: int = 512
    """A new sandbox is refused when the data directory has less than this left."""
    idle_pause_s: float = 30.0
    """A sandbox without use for this long has its CPUs stopped; a sandbox may say otherwise."""
    idle_stop_s: float = 1800.0
    """A sandbox without use for this long goes to disk; a sandbox may say otherwise."""
    pool_ready: int = 1
    """Clones kept exercised and stopped for each shape asked for lately; each takes some 40 MiB."""
    pool_waiting: int = 0
    """VMMs kept waiting for their state, for each shape asked for lately; each takes some 20 MiB."""
    stop_on_exit: bool = False
    """A daemon that ends takes its machines to disk instead of leaving them running for the next one."""
    template_max_age_s: float = 7 * 86400.0
    """A template that nobody needs or has started from for this long is deleted."""
    template_max_mib: int = 8192
    """All templates may take this much on disk; beyond it those that nobody needs go, the least recently used first."""
    exec_log_max_mib: int = 16
    """So much of one command's output is kept; beyond it the oldest goes."""
    exec_logs_max_mib: int = 128
    """So much of all commands of one sandbox; beyond it the command that ended first is forgotten."""
    exec_logs_max_mib_per_user: int = 1024
    """So much of all commands of one user."""
    execs_kept: int = 1000
    """So many commands that have ended are remembered of one sandbox."""
    exec_kept_s: float = 7 * 86400.0
    """So long one is remembered after its end."""
    max_disk_layers: int = 16
    """So many frozen disks may lie below a sandbox's own; a copy that would have more gets them merged into one."""
    quotas: Quotas = DEFAULT_QUOTAS
    """How much a user may have unless an administrator said otherwise of that user."""
    rates: ApiRates = DEFAULT_RATES
    """How often the API may be asked over the network."""
    audit_days: int = 90
    """So long the audit log remembers."""
    master_key: Path | None = None
    """The file of the key that users' secrets are sealed with; None is ``master.key`` in the data directory."""
    net: str = "auto"
    """``full``: networks of this host's kernel, which takes root's rights; ``user``: user-mode networking, which takes
    none; ``auto``: the first where it is to be had."""
    net_default: str = "deny"
    """What a sandbox reaches of the world unless somebody says otherwise: ``deny`` nothing, ``public`` what is not
    private. A program nobody trusts does not speak from this host's address before somebody lets it."""
    uplink: str = "host"
    """How sandboxes come to the world: by this ``host``, not at all (``none``), by a namespace (``netns:NAME``)."""
    dns_servers: tuple[str, ...] = ()
    """Asked for the world's names; without any those of this host that are not on its loopback."""
    network_slots: int = 2
    """Machines' networks kept made ahead."""
