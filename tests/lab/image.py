"""The lab's image: built once for each state of its packages, kernel and libraries, in the set-up's image store."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import Distribution
from pathlib import Path

import msgspec
from tests.boot import DATA
from tests.lab import libraries

from hearth.errors import HostUnfit
from hearth.host.threads import on_own_thread
from hearth.image import kernel, tools
from hearth.image.apt import Apt, Package, fingerprint
from hearth.image.build import check_host
from hearth.image.filesystem import Account, add_account
from hearth.image.owners import Owners
from hearth.image.progress import OnProgress
from hearth.image.recipe import RootfsRecipe, kernel_recipe
from hearth.image.rootfs import build_system
from hearth.image.store import Image, ImageStore, remove
from hearth.model import ImageKind

NAME = "lab"
RECIPE = Path(__file__).with_name("recipe.toml")
S3_BUILDER = Path(__file__).parents[2] / "packaging/test-s3-server"
BUILDER = 2
"""What goes into the image beside packages; another number makes all of them anew."""
LIBRARIES = Path("opt/hearth/libraries")
SHORT_S = 300.0
STALE_AFTER = timedelta(days=1)
"""Older images of another state go; younger ones may be another clone's of the same sources."""


async def lab_image(on_progress: OnProgress) -> Image:
    """Give the lab's root file system, which is built the first time: a minute or two.

    Raises:
        HostUnfit: the host cannot build, or the set-up has not run.
        Unavailable: a download failed.
        NoSpace: the disk is or would be full.
    """
    check_host()
    store = ImageStore(DATA)
    apt = Apt(store)
    server = await on_own_thread("S3 server", s3_server)
    booted = store.get(kernel.NAME)
    packages = await kernel.kernel_packages(kernel_recipe(), apt)
    if booted.facts["packages"] != fingerprint(packages):
        raise HostUnfit("the kernel is not the newest one", resolution="run 'make setup'")
    distributions = libraries.needed()
    recipe = msgspec.toml.decode(RECIPE.read_bytes(), type=RootfsRecipe)
    inputs = {**ingredients(), "kernel": booted.facts["packages"]}

    async def fill(tree: Path, owners: Owners) -> None:
        await on_own_thread("libraries", lambda: put(tree, server, distributions))
        await add_modules(tree, owners, apt, packages, booted.facts["release"])

    image = await build_system(store, apt, recipe, on_progress, name=NAME, inputs=inputs, fill=fill)
    await forget_stale(store, image)
    return image


def ingredients() -> Mapping[str, object]:
    """Give what goes into the image beside packages and kernel: told in a moment, without apt."""
    server = [file.read_text() for file in (S3_BUILDER, *sorted(S3_BUILDER.with_name("s3-server").glob("go.*")))]
    return {
        "lab": BUILDER,
        "recipe": RECIPE.read_text(),
        "libraries": libraries.versions(libraries.needed()),
        "s3": hashlib.sha256("".join(server).encode()).hexdigest(),
    }


def s3_server() -> Path:
    """Give the S3 server's program, which is built the first time."""
    built = subprocess.run([S3_BUILDER], stdout=subprocess.PIPE, text=True, timeout=SHORT_S, check=True)
    return Path(built.stdout.strip())


def put(tree: Path, server: Path, distributions: list[Distribution]) -> None:
    """Add the Python libraries, the S3 server, and the accounts that other packages than ours would make.

    Raises:
        HostUnfit: the tree's Python is not the one that the libraries are for.
    """
    host, guest = libraries.versions([])[0].split()[1], tree_python(tree)
    if host != guest:
        raise HostUnfit(
            "the lab's Python is another one",
            details=f"libraries of Python {host} do not fit the release's Python {guest}",
            resolution="make .venv with the distribution's own python3",
        )
    libraries.copy(distributions, tree / LIBRARIES)
    libraries.compile_all(tree / LIBRARIES)
    program = tree / "usr/local/bin/versitygw"
    program.write_bytes(server.read_bytes())
    program.chmod(0o755)
    add_account(tree, Account(name="libvirt-qemu", uid=64055))
    if not any(line.startswith("kvm:") for line in (tree / "etc/group").read_text().splitlines()):
        with (tree / "etc/group").open("a") as groups:
            groups.write("kvm:x:993:\n")


def tree_python(tree: Path) -> str:
    """Tell the version of a tree's python3, such as ``3.11``."""
    return (tree / "usr/bin/python3").readlink().name.removeprefix("python")


async def add_modules(tree: Path, owners: Owners, apt: Apt, packages: list[Package], release: str) -> None:
    """Add all modules of the kernel that sandboxes boot."""
    unpacked = tree.with_name("unpacked")
    unpacked.mkdir()
    await apt.unpack(packages, unpacked)
    (modules,) = (path for place in ("lib", "usr/lib") for path in unpacked.glob(f"{place}/modules/{release}"))
    target = tree / "usr/lib/modules" / release
    await tools.run(["mkdir", "-p", str(target.parent)], timeout_s=SHORT_S, where=tree)
    await tools.run(["mv", str(modules), str(target)], timeout_s=SHORT_S, where=tree)
    await tools.run([*owners.prefix, "chroot", str(tree), "depmod", "-a", release], timeout_s=SHORT_S, where=tree)
    await remove(unpacked)
    apt.forget(packages)


async def forget_stale(store: ImageStore, current: Image) -> None:
    """Remove images of the lab that nobody is likely to use any more."""
    for image in store.list():
        is_old = datetime.now(UTC) - image.created_at > STALE_AFTER
        if image.kind is ImageKind.ROOTFS and image.name == NAME and image.id != current.id and is_old:
            await store.remove(image.id)
