"""Storages on a group of the tests', and what is in it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from tests.contract.test_golden_backends import ignore, spec
from tests.volume.golden.groups import POOL

from hearth.volume.golden.base import GoldenImage, GoldenVolume
from hearth.volume.golden.homes import KeeperOf, nobody_keeps
from hearth.volume.golden.lvm import Lvm, LvmSettings
from hearth.volume.golden.lvm_making import LvmChoices
from hearth.volume.golden.lvm_thin import ThinChoice
from hearth.volume.golden.lvm_volumes import LvmGoldenVolumes
from hearth.volume.golden.populate import populate


def backend(
    settings: LvmSettings,
    pool: str,
    *,
    cached: Collection[str] = (),
    used: bool = False,
    metadata_max_percent: int = 80,
    home: str = "test",
    keeper_of: KeeperOf = nobody_keeps,
) -> LvmGoldenVolumes:
    async def keys() -> Collection[str]:
        return cached

    async def user_of(_path: Path) -> str | None:
        return "a domain" if used else None

    thin = ThinChoice(pool=pool, metadata_max_percent=metadata_max_percent)
    choices = LvmChoices(home=home, locks=settings.lock.parent, thin=thin, keeper_of=keeper_of)
    return LvmGoldenVolumes(Lvm(settings), choices, cached=keys, user_of=user_of)


async def provisioned(volumes: LvmGoldenVolumes, image: GoldenImage, name: str = "golden") -> GoldenVolume:
    target = await volumes.create(spec(name), image)
    await populate(image, target, ignore)
    return await volumes.publish(target)


async def names(settings: LvmSettings) -> list[str]:
    return sorted(volume.name for volume in await Lvm(settings).volumes() if volume.name != POOL)
