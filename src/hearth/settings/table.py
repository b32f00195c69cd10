"""The table of settings. A row's name gives its flag, its variable and its key: ``idle_pause`` is ``--idle-pause``,
``HEARTH_IDLE_PAUSE`` and ``idle_pause`` in the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from hearth.config import Settings
from hearth.settings.kinds import (
    QUOTAS,
    RATES,
    Choice,
    Duration,
    FilePath,
    Kind,
    Level,
    Many,
    Text,
    Whole,
    YesNo,
)

MAX_POOL = 64
"""Most machines of one shape that an operator may keep ready."""
MAX_DAYS = 36_500
MAX_MIB = 1 << 33
DEFAULTS = Settings()


@dataclass(frozen=True, kw_only=True)
class Alias:
    """Another variable that is read where a setting's own is not set; ``reword`` turns its text into ours."""

    name: str
    reword: Callable[[str], str] = str


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row.

    Args:
        help: a phrase, as usage shows it.
        field: the field of ``Settings`` it goes to, with dots; its default is then that field's.
        is_secret: never shown, never a flag, and a file with it is private.
        is_live: a reload changes it without a restart.
    """

    name: str
    group: str
    kind: Kind
    help: str
    default: Any = None
    field: str | None = None
    aliases: tuple[Alias, ...] = ()
    is_secret: bool = False
    is_live: bool = False

    @property
    def flag(self) -> str | None:
        return None if self.is_secret else "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return f"HEARTH_{self.name.upper()}"


def _row(name: str, group: str, kind: Kind, text: str, field: str | None = None, **more: Any) -> Setting:
    if field is not None and "default" not in more:
        more["default"] = reduce(getattr, field.split("."), DEFAULTS)
    return Setting(name=name, group=group, kind=kind, help=text, field=field, **more)


def _aliases(*names: str) -> tuple[Alias, ...]:
    return tuple(Alias(name=name) for name in names)


_TEXTS = Many(Text())
_BACKOFF = Many(Whole(0, 86_400_000, "ms"))
_MIB = Whole(1, MAX_MIB, "MiB")

_SERVER = (
    _row("data", "server", FilePath("DIR"), "data directory (default: /var/lib/hearth, else XDG's)"),
    _row("listen", "server", Many(Text("ADDR")), "also serve the API on ADDR (host:port)", default=()),
    _row("allow_remote", "server", YesNo(), "let --listen take addresses that are not loopback", default=False),
    _row("tls_cert", "server", FilePath(), "certificate chain in PEM for --listen: serve TLS alone",
         aliases=_aliases("TLS_CERT_FILE"), is_live=True),
    _row("tls_key", "server", FilePath(), "its private key in PEM", aliases=_aliases("TLS_KEY_FILE"), is_live=True),
    _row("client_ca", "server", FilePath(),
         "take certificates this authority (PEM) signed: their common or alternative name is a user's",
         aliases=_aliases("CLIENT_CA_CERT")),
    _row("drain", "server", Duration(), "wait so long for requests at the end", default=10.0),
    _row("stop_on_exit", "server", YesNo(),
         "at the end bring sandboxes to disk instead of leaving them running", "stop_on_exit"),
    _row("database_url", "server", Text("URL"),
         "where the daemon keeps what it knows (default: hearth.db in the data directory)", "database_url",
         is_secret=True,
         aliases=(Alias(name="DATABASE_URL"), Alias(name="DB_PATH", reword=lambda path: f"sqlite:///{path}"))),
    _row("master_key", "server", FilePath(),
         "what secrets are sealed with (default: master.key in the data directory)", "master_key"),
    _row("audit_days", "server", Whole(1, MAX_DAYS, "days"), "keep the audit log for so long", "audit_days"),
)  # fmt: skip
_LOG = (
    _row("log_format", "log", Choice(("auto", "console", "json"), {"text": "console", "plain": "console"}),
         "for people or programs; auto is json where the journal reads it", default="auto",
         aliases=_aliases("LOG_FORMAT")),
    _row("log_level", "log", Many(Level()),
         "debug, info, warning or error; NAME=LEVEL for one logger, such as hearth.guest", default=(("", "info"),),
         is_live=True, aliases=_aliases("LOG_LEVEL")),
    _row("metrics_listen", "log", Text("ADDR"),
         "serve /metrics on ADDR (host:port) without a key; by the API only administrators may read it"),
    _row("otel_endpoint", "log", Text("URL"),
         "send traces to this OpenTelemetry collector, by OTLP over HTTP, such as http://127.0.0.1:4318"),
)  # fmt: skip
_SANDBOXES = (
    _row("engine", "sandboxes", Choice(("qemu", "local")), "what runs sandboxes (local: unsafe)", "engine"),
    _row("idle_pause", "sandboxes", Duration(), "pause sandboxes after so long without use", "idle_pause_s"),
    _row("idle_stop", "sandboxes", Duration(), "bring sandboxes to disk after so long without use", "idle_stop_s"),
    _row("pool", "sandboxes", Whole(0, MAX_POOL, "machines"),
         "keep so many machines ready of each shape asked for lately", "pool_ready"),
    _row("pool_waiting", "sandboxes", Whole(0, MAX_POOL, "machines"),
         "keep so many VMMs waiting for their state, of each shape asked for lately", "pool_waiting"),
    _row("boot_timeout", "sandboxes", Duration(), "from a VMM's start to its guest's first answer", "boot_timeout_s"),
    _row("min_free_mib", "sandboxes", _MIB, "refuse new sandboxes when the disk has less left", "min_free_mib"),
    _row("template_max_age", "sandboxes", Duration(),
         "forget templates that nobody started from for so long", "template_max_age_s"),
    _row("template_max_mib", "sandboxes", _MIB, "all templates may take so much disk", "template_max_mib"),
    _row("max_disk_layers", "sandboxes", Whole(1, 64), "frozen disks below a sandbox's own", "max_disk_layers"),
    _row("machines_cgroup", "sandboxes", Text("PATH"),
         "control group below which machines go (default: a delegated one, else the top)", "machines_cgroup"),
)  # fmt: skip
_NETWORK = (
    _row("net", "networks", Choice(("auto", "full", "user")),
         "networks by this host's kernel (full), in user mode without root's rights, or what there is", "net"),
    _row("net_default", "networks", Choice(("deny", "public")),
         "what sandboxes reach of the world unless told otherwise", "net_default"),
    _row("uplink", "networks", Text("WHERE"), "their way to the world: host, none, or netns:NAME", "uplink"),
    _row("dns", "networks", Many(Text("SERVER")), "ask this server for names of the world (default: this host's)",
         "dns_servers"),
    _row("net_slots", "networks", Whole(0, MAX_POOL, "machines"), "keep the networks of so many machines made ahead",
         "network_slots"),
)  # fmt: skip
_IMAGES = (
    _row("registry_allow", "images", Many(Text("WHERE")),
         "let images be pulled from here though it is not public: HOST, HOST:PORT or a network such as 10.0.0.0/8",
         "registry_allow"),
    _row("registry_insecure", "images", Many(Text("HOST[:PORT]")),
         "let this registry, public or not, be spoken to without TLS when somebody asks for it", "registry_insecure"),
    _row("registry_only", "images", Many(Text("HOST[:PORT]")),
         "let images be pulled from these registries alone (default: from any)", "registry_only"),
    _row("image_max_mib", "images", _MIB, "an archive, and what comes out of an image's layers together",
         "image_max_mib"),
    _row("layer_cache_mib", "images", _MIB, "layers kept as registries have them", "layer_cache_mib"),
)  # fmt: skip
_EXECS = (
    _row("exec_log_max_mib", "commands", _MIB, "output kept of one command", "exec_log_max_mib"),
    _row("exec_logs_max_mib", "commands", _MIB, "output kept of all commands of a sandbox", "exec_logs_max_mib"),
    _row("exec_logs_max_mib_per_user", "commands", _MIB, "output kept of all commands of a user",
         "exec_logs_max_mib_per_user"),
    _row("execs_kept", "commands", Whole(1, 1_000_000, "commands"), "ended commands remembered of a sandbox",
         "execs_kept"),
    _row("exec_kept", "commands", Duration(), "so long a command is remembered after its end", "exec_kept_s"),
    _row("terminal_idle", "commands", Duration(),
         "a terminal through which nothing came for so long lets its sandbox sleep", "terminal_idle_s"),
)  # fmt: skip
_LIMITS = (
    _row(
        "rate",
        "limits of users",
        RATES,
        "requests a minute and at once over the network, or 'none'",
        default={},
        is_live=True,
    ),
    _row(
        "quota",
        "limits of users",
        QUOTAS,
        "a user may have N of this, or 'none' for no limit",
        default={},
        is_live=True,
    ),
)
_PUBLIC = (
    _row("public_listen", "published ports", Text("ADDR"), "serve published ports to everybody on ADDR (host:port)"),
    _row("public_zone", "published ports", Text("ZONE"),
         "reach them as ALIAS.ZONE; its DNS has to lead here (default: by path)"),
    _row("public_cert", "published ports", FilePath(), "certificate chain in PEM: serve TLS", is_live=True),
    _row("public_key", "published ports", FilePath(), "its private key in PEM", is_live=True),
    _row("public_url", "published ports", Text("URL"),
         "how a proxy before it is reached: https://ZONE, or https://HOST without one"),
    _row("public_http", "published ports", Text("ADDR"),
         "plain HTTP there: answer the certificate authority, lead others to https"),
    _row("public_acme_directory", "published ports", Text("URL"),
         "order certificates from this authority (ACME), whose terms you agree to; with --public-http for each name, "
         "with --public-acme-dns-hook one for the zone"),
    _row("public_acme_email", "published ports", Text("ADDRESS"), "for the authority, in case it wants to warn you"),
    _row("public_acme_ca", "published ports", FilePath(), "PEM of who vouches for the directory"),
    _row("public_acme_dns_hook", "published ports", FilePath("PROGRAM"),
         "run as 'PROGRAM present|cleanup NAME VALUE' to put a TXT record in place (DNS-01)"),
    _row("public_trusted_proxy", "published ports", Many(Text("CIDR")),
         "believe what a proxy there tells of its clients", default=()),
    _row("public_proxy_header", "published ports", Choice(("x-forwarded-for", "forwarded")),
         "the header in which those proxies tell it", default="x-forwarded-for"),
)  # fmt: skip


def _of_provisioning(name: str, kind: Kind, text: str, *aliases: str, is_secret: bool = False) -> Setting:
    return _row(name, "provisioning of volumes", kind, text, f"provisioning.{name}", aliases=_aliases(*aliases),
                is_secret=is_secret)  # fmt: skip


_PROVISIONING = (
    _of_provisioning("s3_endpoint", Text("ADDR"), "object storage: host:port or a URL", "MINIO_ENDPOINT"),
    _of_provisioning("s3_access_key", Text(), "its access key", "MINIO_ACCESS_KEY", is_secret=True),
    _of_provisioning("s3_secret_key", Text(), "its secret key", "MINIO_SECRET_KEY", is_secret=True),
    _of_provisioning("s3_region", Text("NAME"), "its region", "MINIO_REGION"),
    _of_provisioning("s3_bucket", Text("NAME"), "the bucket of images", "MINIO_BUCKET"),
    _of_provisioning("s3_use_ssl", YesNo(), "speak https to an endpoint that is no URL", "MINIO_USE_SSL"),
    _of_provisioning("s3_retry_attempts", Whole(0, 100), "tries of a download", "MINIO_RETRY_ATTEMPTS"),
    _of_provisioning("s3_retry_backoff_ms", _BACKOFF, "pauses between them", "MINIO_RETRY_BACKOFF_MS"),
    _of_provisioning("lvm_volume_group", Text("NAME"), "where LVM volumes are made", "LVM_VOLUME_GROUP"),
    _of_provisioning(
        "lvm_thin_pool",
        Text("NAME"),
        "its pool of thin volumes, or 'none' for thick ones (default: the only pool there is)",
    ),
    _of_provisioning("lvm_thin_data_percent", Whole(1, 100, "percent"), "a thin pool takes nothing beyond this"),
    _of_provisioning("lvm_thin_metadata_percent", Whole(1, 100, "percent"), "nor with its metadata fuller than this"),
    _of_provisioning("lvm_retry_attempts", Whole(0, 100), "tries of an LVM command", "LVM_RETRY_ATTEMPTS"),
    _of_provisioning("lvm_retry_backoff_ms", _BACKOFF, "pauses between them", "LVM_RETRY_BACKOFF_MS"),
    _of_provisioning(
        "redis_url",
        Text("URL"),
        "count requests (rate) together with the other daemons that are told of this Redis",
        "REDIS_URL",
        is_secret=True,
    ),
    _of_provisioning("libvirt_uri", Text("URI"), "the libvirt whose pools are used", "LIBVIRT_URI"),
    _of_provisioning("image_hosts", Many(Text("HOST[:PORT]")), "web servers that golden images may be read from"),
    _of_provisioning("image_networks", Many(Text("CIDR")), "networks that are not public in which those may be"),
    _of_provisioning("image_directories", Many(FilePath()), "directories whose images file:// URLs may name"),
    _of_provisioning("image_cache_mib", _MIB, "golden images kept"),
    _of_provisioning("provision_pool", Text("NAME"), "where volumes are made unless somebody says otherwise"),
    _of_provisioning("provision_jobs", Whole(1, 64), "volumes filled at once"),
    _of_provisioning("provision_queue", Whole(1, 100_000), "volumes that may wait or be filled, by all daemons"),
    _row("provision_lease", "provisioning of volumes", Duration(),
         "a daemon silent for so long loses its jobs to another", "provisioning.provision_lease_s"),
    _of_provisioning("webhook_secret", Text(), "signs calls about jobs: whsec_ and base64", is_secret=True),
    _of_provisioning("webhook_hosts", Many(Text("HOST[:PORT]")), "web servers that may be called about jobs"),
    _of_provisioning("webhook_networks", Many(Text("CIDR")), "networks that are not public in which those may be"),
    _row("webhook_give_up", "provisioning of volumes", Duration(),
         "who is not reached for so long is called no more", "provisioning.webhook_give_up_s"),
)  # fmt: skip
SETTINGS = (*_SERVER, *_LOG, *_SANDBOXES, *_NETWORK, *_IMAGES, *_EXECS, *_LIMITS, *_PUBLIC, *_PROVISIONING)
BY_NAME = {setting.name: setting for setting in SETTINGS}
GROUPS = tuple(dict.fromkeys(setting.group for setting in SETTINGS))
