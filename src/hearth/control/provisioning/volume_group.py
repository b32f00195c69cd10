"""The volume group of this host, as its operator chose it: as a pool of volumes, and as a line for the doctor."""

from __future__ import annotations

import functools
import os
import shutil
from dataclasses import replace
from pathlib import Path

import structlog

from hearth.config import ProvisioningSettings
from hearth.control.doctor import Finding, ok, warning
from hearth.errors import HearthError, InvalidInput, NotFound
from hearth.host.libvirt import Libvirt
from hearth.image.golden.cache import ImageCache
from hearth.volume.golden.base import UserOf, nobody
from hearth.volume.golden.homes import Homes, nobody_keeps
from hearth.volume.golden.libvirt_pool import refresh_group
from hearth.volume.golden.lvm import Lvm, LvmSettings
from hearth.volume.golden.lvm_making import LvmChoices, why_thick
from hearth.volume.golden.lvm_thin import ThinChoice, choose_pool
from hearth.volume.golden.lvm_volumes import LvmGoldenVolumes
from hearth.volume.golden.lvm_words import check_group_name

log = structlog.get_logger(__name__)

LOCKS = Path("/run/hearth-volumes")
"""The same for all daemons of a host, and gone with its start."""
NAME = "volume group"
GIB = 1 << 30


class VolumeGroups:
    """Gives storages for volume groups of this host.

    Args:
        home: the id of the data directory.
        user_of: tells who else uses a device.
        libvirt: looks at its pools of a group that was changed.
        homes: of the daemons that may use a group with us.
    """

    def __init__(
        self,
        settings: ProvisioningSettings,
        home: str,
        cache: ImageCache,
        user_of: UserOf = nobody,
        libvirt: Libvirt | None = None,
        homes: Homes | None = None,
    ) -> None:
        self._keeper_of = nobody_keeps if homes is None else homes.keeper_of
        self._settings, self._home, self._cache, self._user_of = settings, home, cache, user_of
        self._libvirt = libvirt
        self._made: dict[str, LvmGoldenVolumes] = {}

    async def chosen(self) -> LvmGoldenVolumes | None:
        """Give the pool ``lvm``; None where this host has no such group, or no LVM.

        Raises:
            InvalidInput: a setting is no group's or pool's name.
        """
        settings = self._settings
        group = check_group_name(settings.lvm_volume_group)
        if not has_lvm() or not await _is_there(_lvm(settings, group)):
            if _is_wanted(settings):
                log.warning("there is no such volume group", group=group, resolution="run 'hearth doctor'")
            return None
        return self.of_group(group)

    def of_group(self, group: str) -> LvmGoldenVolumes:
        """Give the storage that a group is, there or not; the chosen thin pool is one of the chosen group."""
        if group not in self._made:
            settings = self._settings
            thin = _thin(settings)
            if group != settings.lvm_volume_group:
                thin = replace(thin, pool=None)
            choices = LvmChoices(home=self._home, locks=made_locks(), thin=thin, keeper_of=self._keeper_of)
            lvm = _lvm(settings, check_group_name(group))
            self._made[group] = LvmGoldenVolumes(
                lvm,
                choices,
                cached=self._cached,
                user_of=self._user_of,
                changed=functools.partial(self._tell, group),
            )
        return self._made[group]

    async def _tell(self, group: str) -> None:
        if self._libvirt is not None and self._libvirt.is_local:
            await refresh_group(self._libvirt, group)

    async def _cached(self) -> set[str]:
        return {entry.key for entry in await self._cache.list()}


def has_lvm() -> bool:
    """Whether LVM is installed, and would answer."""
    return os.geteuid() == 0 and shutil.which("lvs") is not None


async def volume_group(settings: ProvisioningSettings) -> list[Finding]:
    """Judge the group, where there is one or somebody wants one."""
    group, advice = settings.lvm_volume_group, f"vgcreate {settings.lvm_volume_group} DEVICE; see docs/provisioning.md"
    try:
        check_group_name(group)
        if not has_lvm():
            why = "lvm2 is not installed" if os.geteuid() == 0 else "LVM answers to root alone"
            return [warning(NAME, why, "apt-get install lvm2, and run as root")] if _is_wanted(settings) else []
        lvm = _lvm(settings, group)
        found, volumes = await lvm.group(), await lvm.volumes()
        pool = choose_pool(_thin(settings), volumes)
    except NotFound:
        return [warning(NAME, f"there is no group {group!r}", advice)] if _is_wanted(settings) else []
    except HearthError as error:
        return [warning(NAME, f"{group!r}: {error.brief}: {error.details}", error.resolution or advice)]
    if pool is None:
        return [ok(NAME, f"{found.free_bytes / GIB:.1f} GiB free; {why_thick(group)}")]
    data, metadata = pool.data_percent or 0.0, pool.metadata_percent or 0.0
    said = (
        f"thin pool {group}/{pool.name}, {pool.size_bytes / GIB:.1f} GiB: data {data:.0f} %, metadata {metadata:.0f} %"
    )
    if pool.ailment or data > settings.lvm_thin_data_percent or metadata > settings.lvm_thin_metadata_percent:
        return [warning(NAME, f"{said}; nothing more is let in", f"lvextend {group}/{pool.name}, or delete volumes")]
    return [ok(NAME, f"{said}; images are cloned")]


def _lvm(settings: ProvisioningSettings, group: str) -> Lvm:
    return Lvm(
        LvmSettings(
            group=group,
            lock=LOCKS / f"{group}.lock",
            attempts=settings.lvm_retry_attempts,
            backoff_ms=settings.lvm_retry_backoff_ms,
        )
    )


def made_locks() -> Path:
    """Give the directory of locks that all daemons of this host take; only root may make it."""
    LOCKS.mkdir(mode=0o700, exist_ok=True)
    return LOCKS


def shared_locks() -> Path | None:
    """Give the directory of locks that all daemons of this host and this user take; None where none can be had."""
    if os.geteuid() == 0:
        return made_locks()
    runtime = Path(f"/run/user/{os.geteuid()}")
    try:
        if runtime.stat().st_uid != os.geteuid():
            return None
        (runtime / LOCKS.name).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        log.warning("daemons of this user cannot see each other", directory=str(runtime), why=str(error))
        return None
    return runtime / LOCKS.name


async def _is_there(lvm: Lvm) -> bool:
    try:
        await lvm.group()
    except HearthError as error:
        log.debug("no volume group", group=lvm.group_name, why=str(error))
        return False
    return True


def _is_wanted(settings: ProvisioningSettings) -> bool:
    """Whether somebody said something about the group."""
    usual = ProvisioningSettings()
    return (
        settings.provision_pool == LvmGoldenVolumes.name
        or settings.lvm_volume_group != usual.lvm_volume_group
        or settings.lvm_thin_pool != usual.lvm_thin_pool
    )


def _thin(settings: ProvisioningSettings) -> ThinChoice:
    pool = settings.lvm_thin_pool
    if pool is not None and not pool.strip():
        raise InvalidInput("invalid lvm_thin_pool", details="it is empty", field="lvm_thin_pool")
    return ThinChoice(
        pool=pool,
        data_max_percent=settings.lvm_thin_data_percent,
        metadata_max_percent=settings.lvm_thin_metadata_percent,
    )
