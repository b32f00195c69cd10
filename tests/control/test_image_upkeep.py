"""The end of images: the name at once, the bytes when nothing lies over them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.control.conftest import House

from hearth.control.image_upkeep import ImageUpkeep
from hearth.errors import Conflict, NotFound
from hearth.image.store import Image, Made
from hearth.model import ImageKind, SandboxSpec


async def publish(house: House, name: str, owner: str | None, word: str = "content") -> Image:
    async def build(directory: Path) -> Made:
        (directory / "content").write_text(word)
        return Made(primary="content", facts={"config": {"env": {"WORD": word}}})

    return await house.daemon.images.build(ImageKind.ROOTFS, name, f"{name} {owner} {word}", build, owner=owner)


def upkeep(house: House) -> ImageUpkeep:
    sandboxes = house.sandboxes
    images = house.daemon.images
    return ImageUpkeep(store=sandboxes.store, images=images, shelf=sandboxes.shelf, pool=sandboxes.pool, grace_s=0)


async def test_bytes_stay_as_long_as_a_sandbox_lies_over_them(house: House) -> None:
    image = await publish(house, "mine", house.admin.id)
    await house.sandboxes.create(house.admin, SandboxSpec(name="web", image="mine"))
    keeper = upkeep(house)
    await keeper.delete(house.admin, "mine")
    assert await keeper.tidy() == []
    with pytest.raises(NotFound):
        await house.sandboxes.create(house.admin, SandboxSpec(name="other", image="mine"))
    assert (await house.output("web", "printenv", "WORD"))[0] == b"content\n"
    await house.sandboxes.destroy(house.admin, "web")
    assert await keeper.tidy() == [image.id]
    assert not image.directory.exists()


async def test_what_was_replaced_goes_and_what_is_named_stays(house: House) -> None:
    first = await publish(house, "mine", house.admin.id, "one")
    second = await publish(house, "mine", house.admin.id, "two")
    assert await upkeep(house).tidy() == [first.id]
    assert (await house.daemon.images.get(house.admin, "mine")).id == second.id


async def test_images_of_the_host_and_of_strangers_to_this_daemon_are_left_alone(house: House) -> None:
    old = await publish(house, "shared", None, "one")
    await publish(house, "shared", None, "two")
    foreign = await publish(house, "foreign", "user-of-another", "three")
    house.daemon.images.store.unname(foreign)
    assert await upkeep(house).tidy() == []
    assert old.directory.exists() and foreign.directory.exists()


async def test_an_image_of_the_host_is_deleted_only_while_nothing_lies_over_it(house: House) -> None:
    await publish(house, "shared", None)
    await house.sandboxes.create(house.admin, SandboxSpec(name="web", image="shared"))
    keeper = upkeep(house)
    for name in ("shared", "kernel"):
        with pytest.raises(Conflict):
            await keeper.delete(house.admin, name)
    await house.sandboxes.destroy(house.admin, "web")
    await keeper.delete(house.admin, "shared")
    with pytest.raises(NotFound):
        await house.daemon.images.get(house.admin, "shared")
