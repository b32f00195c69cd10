"""A volume group on device-mapper for all tests of a file, each of which leaves it empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.test_golden_backends import DATA, make_image
from tests.volume.golden.groups import NO_DEVICE_MAPPER, has_device_mapper, remove_volumes, volume_group

from hearth.volume.golden.base import GoldenImage
from hearth.volume.golden.lvm import LvmSettings


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LvmSettings | None]:
    if not has_device_mapper():
        yield None
        return
    with volume_group(tmp_path_factory.mktemp("lvm"), size_mib=384, has_driver=True, pool_mib=128) as made:
        yield made


@pytest.fixture
def settings(group: LvmSettings | None) -> Iterator[LvmSettings]:
    if group is None:
        pytest.skip(NO_DEVICE_MAPPER)
    yield group
    remove_volumes(group)


@pytest.fixture
def image(tmp_path: Path) -> GoldenImage:
    return make_image(tmp_path, "qcow2", DATA)
