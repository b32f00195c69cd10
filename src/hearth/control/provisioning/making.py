"""Puts the provisioner of one daemon together, from what its operator chose."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network

import structlog

from hearth.config import DataDirectory, ProvisioningSettings
from hearth.control.pages import every
from hearth.control.provisioning.links import Links
from hearth.control.provisioning.order import KIND
from hearth.control.provisioning.pools import Pools
from hearth.control.provisioning.provisioner import UNFINISHED, Provisioner
from hearth.control.provisioning.volume_group import VolumeGroups, has_lvm, shared_locks
from hearth.control.provisioning.work import Tools
from hearth.control.reporting import Reporter
from hearth.control.webhooks import WebhookSettings
from hearth.errors import HostUnfit, InvalidInput
from hearth.host.clock import Clock
from hearth.host.directory import load_host_id
from hearth.host.libvirt import Libvirt
from hearth.host.libvirt_binding import load_binding
from hearth.image.golden.cache import ImageCache
from hearth.image.golden.judge import ImageJudge
from hearth.image.golden.remembered import Notes
from hearth.image.golden.settings import (
    CacheSettings,
    DownloadSettings,
    GoldenSettings,
    RetrySettings,
    S3Settings,
    SourcePolicy,
)
from hearth.jobs.lease import LeaseTerms
from hearth.jobs.patience import patiently
from hearth.jobs.runner import Runner
from hearth.model import Job
from hearth.store.base import JobStore
from hearth.volume.golden.base import GoldenBackend, nobody
from hearth.volume.golden.domains import Domains
from hearth.volume.golden.file import FileGoldenVolumes
from hearth.volume.golden.homes import Homes, Kin, no_kin
from hearth.webhooks import read_secrets

log = structlog.get_logger(__name__)

MIB = 1024 * 1024
LEASE_MIN_S = 1.0
HEARTBEATS = 3
"""Of a lease: two may be lost."""


async def make_provisioner(
    *,
    data: DataDirectory,
    settings: ProvisioningSettings,
    jobs: JobStore,
    runner: Runner,
    reporter: Reporter,
    clock: Clock,
    host: str,
    links: Links,
    notes: Notes | None = None,
    kin: Kin = no_kin,
) -> Provisioner:
    """Give the provisioner of a prepared data directory on the host of that name.

    ``kin`` are the data directories of the daemons whose jobs are in the same store.

    Raises:
        InvalidInput: a setting cannot be used.
    """
    golden = golden_settings(settings)
    cache = ImageCache(
        data.golden_images,
        golden.cache,
        ImageJudge(virtual_max_bytes=golden.cache.virtual_max_bytes),
        clock,
    )
    cache.prepare()

    async def unfinished() -> Collection[str]:
        def listed() -> Awaitable[Sequence[Job]]:
            return every(lambda page: jobs.list(states=UNFINISHED, page=page))

        return {job.id for job in await patiently(listed, clock, what="what is unfinished") if job.kind == KIND}

    tools = Tools(
        settings=golden,
        cache=cache,
        pools=await make_pools(data, settings, cache, kin),
        reporter=reporter,
        jobs=unfinished,
        note=runner.note,
        host=host,
        links=links,
        notes=notes,
    )
    if settings.provision_pool not in tools.pools:
        raise InvalidInput(
            "unknown provision_pool",
            details=f"{settings.provision_pool!r} is none of {', '.join(sorted(tools.pools))}",
            resolution="choose one of these",
            field="provision_pool",
        )
    provisioner = Provisioner(
        tools,
        jobs=jobs,
        runner=runner,
        default_pool=settings.provision_pool,
        at_once=settings.provision_jobs,
        queue_max=settings.provision_queue,
    )
    links.join(provisioner)
    return provisioner


def lease_terms(settings: ProvisioningSettings) -> LeaseTerms:
    """Give how the leases of these jobs are kept. Raises InvalidInput."""
    lease_s = settings.provision_lease_s
    if lease_s < LEASE_MIN_S:
        raise InvalidInput(
            "invalid provision_lease",
            details=f"{lease_s:g} s is shorter than {LEASE_MIN_S:g} s: a busy host would lose its jobs",
            resolution="leave it out, or choose a longer one",
            field="provision_lease",
        )
    return LeaseTerms(lease_s=lease_s, heartbeat_s=lease_s / HEARTBEATS)


def webhook_settings(settings: ProvisioningSettings) -> WebhookSettings:
    """Give an operator's choices as whoever calls about jobs takes them. Raises InvalidInput."""
    try:
        secrets = () if settings.webhook_secret is None else read_secrets(settings.webhook_secret)
    except ValueError as error:
        raise InvalidInput(
            "invalid webhook_secret",
            details=str(error),
            resolution="make one: echo whsec_$(openssl rand -base64 32)",
            field="webhook_secret",
        ) from error
    networks = tuple(_network(text, "webhook_networks") for text in settings.webhook_networks)
    policy = SourcePolicy(http_hosts=settings.webhook_hosts, private_networks=networks)
    return WebhookSettings(policy=policy, secrets=secrets, give_up_s=settings.webhook_give_up_s)


async def make_pools(
    data: DataDirectory, settings: ProvisioningSettings, cache: ImageCache, kin: Kin = no_kin
) -> Pools:
    """Give the storages of this host by the names that orders call them by, and those of its libvirt.

    Raises:
        Conflict: another daemon, in a copy of the data directory, would take ours for its own.
    """
    libvirt = None if settings.libvirt_uri is None else _libvirt(settings.libvirt_uri)
    user_of = nobody if libvirt is None else Domains(libvirt).user_of
    home = load_host_id(data)
    files = FileGoldenVolumes(data.golden_volumes, user_of=user_of, home=home)
    files.prepare()
    own: dict[str, GoldenBackend] = {files.name: files}
    locks = shared_locks() if libvirt is not None or has_lvm() else None
    homes = None if locks is None else Homes(home, locks, kin)
    groups = VolumeGroups(settings, home, cache, user_of, libvirt, homes)
    if (group := await groups.chosen()) is not None:
        own[group.name] = group
    if homes is not None and (libvirt is not None or group is not None):
        await homes.enter()
    return Pools(
        own,
        libvirt,
        state=data.libvirt_pools,
        of_group=groups.of_group if has_lvm() else None,
        home=home,
        locks=locks,
        homes=homes,
    )


def _libvirt(uri: str) -> Libvirt:
    try:
        load_binding()
    except HostUnfit as error:
        log.warning("libvirt_uri is set, but libvirt cannot be used", why=str(error))
    return Libvirt(uri)


def golden_settings(settings: ProvisioningSettings) -> GoldenSettings:
    """Give an operator's choices as image sources and the cache take them.

    Raises:
        InvalidInput: names the setting.
    """
    retry = RetrySettings(attempts=settings.s3_retry_attempts, backoff_ms=settings.s3_retry_backoff_ms)
    return GoldenSettings(
        s3=_storage(settings),
        policy=SourcePolicy(
            http_hosts=settings.image_hosts,
            private_networks=tuple(_network(text, "image_networks") for text in settings.image_networks),
            directories=settings.image_directories,
        ),
        cache=CacheSettings(max_bytes=settings.image_cache_mib * MIB, download=DownloadSettings(retry=retry)),
    )


def _storage(settings: ProvisioningSettings) -> S3Settings | None:
    if settings.s3_endpoint is None:
        return None
    if settings.s3_access_key is None or settings.s3_secret_key is None:
        raise InvalidInput(
            "the object storage's keys are missing",
            details="s3_endpoint is set, s3_access_key or s3_secret_key is not",
            resolution="set all three",
            field="s3_access_key" if settings.s3_access_key is None else "s3_secret_key",
        )
    scheme = "https" if settings.s3_use_ssl else "http"
    endpoint = settings.s3_endpoint if "://" in settings.s3_endpoint else f"{scheme}://{settings.s3_endpoint}"
    return S3Settings(
        endpoint=endpoint,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key,
        region=settings.s3_region or "us-east-1",
        buckets=() if settings.s3_bucket is None else (settings.s3_bucket,),
    )


def _network(text: str, field: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise InvalidInput(
            f"invalid {field}",
            details=f"{text[:80]!r}: {error}",
            resolution="give networks such as 10.0.0.0/8",
            field=field,
        ) from error
