"""What an operator decides about golden images, as values: where they may come from and how much may be kept.

Nothing here reads the environment; whoever starts the daemon does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

GIBIBYTE = 1 << 30


@dataclass(frozen=True, kw_only=True)
class S3Settings:
    """The one object storage that credentials are for (``MINIO_*``).

    Args:
        endpoint: ``http(s)://host[:port]``.
        buckets: those that may be read; the first stands for a URL without one. Empty: every bucket there.
    """

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"
    buckets: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SourcePolicy:
    """Where image URLs may point beside the configured storage; by default nowhere.

    Args:
        http_hosts: ``host``, ``host:port`` or ``*.domain``; without a port 80 and 443 are meant.
        private_networks: addresses out of the public Internet that those hosts may have. Link-local addresses and those
            of clouds' metadata services are never asked, whatever is listed.
        directories: those whose files may be read by ``file://`` URLs.
    """

    http_hosts: tuple[str, ...] = ()
    private_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    directories: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RetrySettings:
    """How often and after what pauses (milliseconds) something that failed by chance is tried again.

    The last pause stands for all further ones; each is drawn between half of it and all of it.
    """

    attempts: int = 3
    backoff_ms: tuple[int, ...] = (100, 1_000, 10_000)


@dataclass(frozen=True, kw_only=True)
class DownloadSettings:
    """How images are fetched; ranges are added one doubling at a time, as long as that makes it faster."""

    ranges_max: int = 8
    stall_timeout_s: float = 30.0
    memory_max_bytes: int = 64 * 1024 * 1024
    retry: RetrySettings = field(default_factory=RetrySettings)


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """How much is kept, and for how long.

    Args:
        max_bytes: of all images and parts together.
        image_max_bytes: of one object.
        virtual_max_bytes: of the disk that an image describes.
        unused_max_s: an image that nobody used for so long goes.
        part_max_s: so does what an interrupted download left.
        refusal_s: so long a refused object is not fetched again.
    """

    max_bytes: int = 100 * GIBIBYTE
    image_max_bytes: int = 64 * GIBIBYTE
    virtual_max_bytes: int = 2048 * GIBIBYTE
    unused_max_s: float = 30 * 86_400.0
    part_max_s: float = 86_400.0
    refusal_s: float = 600.0
    download: DownloadSettings = field(default_factory=DownloadSettings)


@dataclass(frozen=True, kw_only=True)
class GoldenSettings:
    """All of it."""

    s3: S3Settings | None = None
    policy: SourcePolicy = field(default_factory=SourcePolicy)
    cache: CacheSettings = field(default_factory=CacheSettings)
