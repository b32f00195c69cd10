"""Where hearth keeps things and what it was told, as values; ``hearth.settings`` reads them, once, at the edge."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hearth.place import DataDirectory, config_directory, data_in_file, default_data_root, load_data_directory
from hearth.quota import DEFAULT_QUOTAS, Quotas
from hearth.rates import DEFAULT_RATES, ApiRates

__all__ = [
    "DataDirectory",
    "ProvisioningSettings",
    "Settings",
    "config_directory",
    "data_in_file",
    "default_data_root",
    "load_data_directory",
]


@dataclass(frozen=True, kw_only=True)
class ProvisioningSettings:
    """Where images come from, where volumes are made, and what daemons share. Passwords are never shown."""

    s3_endpoint: str | None = None
    """``host:port`` or a URL of the object storage."""
    s3_access_key: str | None = field(default=None, repr=False)
    s3_secret_key: str | None = field(default=None, repr=False)
    s3_region: str | None = None
    s3_bucket: str | None = None
    s3_use_ssl: bool = True
    """How ``s3_endpoint`` is spoken to where it is no URL."""
    s3_retry_attempts: int = 3
    s3_retry_backoff_ms: tuple[int, ...] = (100, 1000, 10_000)
    """Before each further attempt; the last counts on."""
    lvm_volume_group: str = "data"
    lvm_thin_pool: str | None = None
    """The pool of thin volumes in it; ``none`` makes them thick, None takes the only pool there is."""
    lvm_thin_data_percent: int = 90
    lvm_thin_metadata_percent: int = 80
    """Fuller than this a thin pool takes nothing more."""
    lvm_retry_attempts: int = 2
    lvm_retry_backoff_ms: tuple[int, ...] = (100, 1000)
    redis_url: str | None = field(default=None, repr=False)
    """Where several daemons that serve one address count requests together."""
    libvirt_uri: str | None = None
    image_hosts: tuple[str, ...] = ()
    """Web servers (HOST, HOST:PORT, ``*.DOMAIN``) that images may be read from, beside the object storage."""
    image_networks: tuple[str, ...] = ()
    """Networks that are not public in which those may be."""
    image_directories: tuple[Path, ...] = ()
    """Directories whose files ``file://`` URLs may name."""
    image_cache_mib: int = 100 * 1024
    """Golden images are kept up to this much; those in use or pinned always."""
    provision_pool: str = "file"
    """Where volumes are made unless somebody says otherwise."""
    provision_jobs: int = 2
    """So many volumes are filled at once."""
    provision_queue: int = 100
    """So many may wait or be filled."""
    provision_lease_s: float = 30.0
    """A daemon that is silent for so long counts as dead: another takes its jobs."""
    webhook_secret: str | None = field(default=None, repr=False)
    """``whsec_`` and base64: calls about jobs are signed with it; two with a blank between them while it is changed."""
    webhook_hosts: tuple[str, ...] = ()
    """Web servers (HOST, HOST:PORT, ``*.DOMAIN``) that may be called about jobs."""
    webhook_networks: tuple[str, ...] = ()
    """Networks that are not public in which those may be."""
    webhook_give_up_s: float = 86_400.0
    """Who has not heard a call for so long is called no more about that job."""


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
    terminal_idle_s: float = 1800.0
    """A terminal, or piped session, through which nothing came for so long lets its sandbox sleep; input wakes it."""
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
    database_url: str | None = field(default=None, repr=False)
    """Where the daemon keeps what it knows; None is ``hearth.db`` in the data directory."""
    machines_cgroup: str | None = None
    """The control group that machines' groups go below, from the top of version 2's hierarchy; None finds one."""
    provisioning: ProvisioningSettings = field(default_factory=ProvisioningSettings)
    registry_allow: tuple[str, ...] = ()
    """Registries (HOST, HOST:PORT) and networks of theirs that images may be pulled from though they are not public."""
    registry_insecure: tuple[str, ...] = ()
    """Registries (HOST, HOST:PORT) that are spoken to without TLS when somebody asks for it; they may be private."""
    registry_only: tuple[str, ...] = ()
    """Where there are any, images are pulled from these registries (HOST, HOST:PORT) alone."""
    image_max_mib: int = 20 * 1024
    """An archive may have this much, and so much may come out of an image's layers together."""
    layer_cache_mib: int = 10 * 1024
    """Layers as registries have them are kept up to this much, those used last."""
