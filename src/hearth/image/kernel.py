"""The kernel: the newest one the distribution's cloud metapackage asks for, with the modules guests load."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from hearth.errors import HostUnfit
from hearth.host import files, process
from hearth.host.threads import on_own_thread
from hearth.image import modules
from hearth.image.apt import Apt, Package, architecture, fingerprint
from hearth.image.progress import OnProgress, Progress
from hearth.image.recipe import KernelRecipe, kernel_recipe
from hearth.image.release import read_release
from hearth.image.store import Image, ImageStore, Made, build_key, remove
from hearth.model import ImageKind

NAME = "kernel"
IMAGE_PACKAGE = re.compile(r"linux-image-(?:unsigned-)?\d.*")
MODULES_PACKAGE = re.compile(r"linux-modules-\d.*")
DECOMPRESS_TIMEOUT_S = 60.0
SIZE_FACTOR = 6
"""Bytes needed while building for each byte of packages (measured: 27 MB of them unpack to 106)."""


async def build_kernel(store: ImageStore, apt: Apt, on_progress: OnProgress) -> Image:
    """Give the kernel image for the newest kernel that apt knows.

    The primary file is ``vmlinuz``; ``facts["modules"]`` lists ``modules/*.ko`` in load order, ``facts["release"]`` is
    what ``uname -r`` prints in the guest.

    Raises:
        HostUnfit: no recipe for this distribution, or the kernel lacks a module.
        Unavailable: a download failed.
    """
    recipe = kernel_recipe()
    packages = await kernel_packages(recipe, apt)
    key = build_key(
        ImageKind.KERNEL,
        {"builder": recipe.builder, "packages": fingerprint(packages), "modules": recipe.modules.names},
    )

    async def build(staging: Path) -> Made:
        on_progress(Progress(stage=NAME, fraction=0.1, message=f"downloading {packages[0].name}"))
        unpacked = staging / "unpacked"
        unpacked.mkdir()
        files.require_free(staging, sum(package.size_bytes for package in packages) * SIZE_FACTOR)
        await apt.unpack(packages, unpacked)
        on_progress(Progress(stage=NAME, fraction=0.7, message="collecting modules"))
        (vmlinuz,) = unpacked.glob("boot/vmlinuz-*")
        release = vmlinuz.name.removeprefix("vmlinuz-")
        vmlinuz.rename(staging / "vmlinuz")
        names = await collect_modules(unpacked, release, recipe.modules.names, staging / "modules")
        await remove(unpacked)
        return Made(primary="vmlinuz", facts={"release": release, "modules": names, "packages": fingerprint(packages)})

    image = await store.obtain(ImageKind.KERNEL, NAME, key, build, on_progress)
    apt.forget(packages)
    on_progress(Progress(stage=NAME, fraction=1.0, message=f"{image.id} is Linux {image.facts['release']}"))
    return image


async def kernel_packages(recipe: KernelRecipe, apt: Apt) -> list[Package]:
    """Find the package that holds the newest kernel and, where they are apart, the one with its modules."""
    release, machine = read_release(), await architecture()
    try:
        metapackage = recipe.metapackages[release.family][machine]
    except KeyError as error:
        raise HostUnfit(
            "no kernel recipe for this system",
            details=f"distribution {release.id!r}, architecture {machine!r}",
            resolution="use Debian or Ubuntu on amd64 or arm64",
        ) from error
    (meta,) = await apt.show([metapackage])
    (image,) = await apt.show([pick(meta, IMAGE_PACKAGE)])
    if any(MODULES_PACKAGE.fullmatch(name) for name in image.depends):
        return [image, *await apt.show([pick(image, MODULES_PACKAGE)])]
    return [image]


def pick(package: Package, pattern: re.Pattern[str]) -> str:
    """Give the first dependency whose name matches.

    Raises:
        HostUnfit: none does; the metapackage is not what the recipe thinks.
    """
    for name in package.depends:
        if pattern.fullmatch(name):
            return name
    raise HostUnfit(
        "a package does not depend on what it should",
        details=f"{package.name} {package.version} depends on {', '.join(package.depends)}",
        resolution="change the kernel recipe",
    )


async def collect_modules(unpacked: Path, release: str, wanted: list[str], target: Path) -> list[str]:
    """Copy the wanted modules and what they depend on into ``target``, decompressed.

    Returns:
        Paths relative to ``target``'s parent, in load order.
    """
    # Before the usr merge kernels kept their modules in /lib, after it in /usr/lib.
    tree = next(path for path in (unpacked / "lib", unpacked / "usr/lib") if (path / "modules" / release).is_dir())
    found = modules.find_modules(tree / "modules" / release)
    builtin = modules.built_in((tree / "modules" / release / "modules.builtin").read_text())
    contents: dict[str, bytes] = {}
    pending = [name for name in wanted if name in found]
    while pending:
        name = pending.pop()
        if name not in contents:
            contents[name] = await read_module(found[name])
            pending += [needed for needed in modules.dependencies(contents[name]) if needed in found]
    order = modules.load_order(
        wanted, lambda name: modules.dependencies(contents[name]), available=found, builtin=builtin
    )
    await on_own_thread("write", lambda: write_modules(target, {name: contents[name] for name in order}))
    return [f"{target.name}/{name}.ko" for name in order]


def write_modules(directory: Path, contents: Mapping[str, bytes]) -> None:
    """Write modules into a new directory."""
    directory.mkdir()
    for name, data in contents.items():
        (directory / f"{name}.ko").write_bytes(data)


async def read_module(path: Path) -> bytes:
    """Give a module's bytes, decompressed.

    Raises:
        HostUnfit: it is compressed with zstd and the tool is not installed.
    """
    if path.suffix == ".zst":
        shown = await process.run(["zstd", "-dcq", str(path)], timeout_s=DECOMPRESS_TIMEOUT_S)
        return shown.stdout
    return modules.DECOMPRESSORS[path.suffix](await on_own_thread("read", path.read_bytes))
