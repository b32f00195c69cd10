"""Root file systems: the host's own Debian or Ubuntu release by mmdebstrap, or any tree, as a sparse ext4 file."""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hearth.errors import HostUnfit, InvalidInput
from hearth.host import files, process
from hearth.host.threads import on_own_thread
from hearth.image import sources, tools
from hearth.image.apt import Apt, fetch_settings
from hearth.image.filesystem import Account, add_account, add_mount_points, make_ext4, trim
from hearth.image.owners import Owners, forget, owners_for
from hearth.image.progress import OnProgress, Progress, ignore_progress
from hearth.image.recipe import RootfsRecipe, rootfs_recipe
from hearth.image.release import Release, read_release
from hearth.image.store import Image, ImageStore, Made, build_key, remove
from hearth.model import ImageKind

NAME = "debian"
BOOTSTRAP_TIMEOUT_S = 1800.0
COPY_TIMEOUT_S = 600.0
INSTALLED = re.compile(r"^Package: (\S+)\n(?:[^\n]+\n)*?Version: (\S+)$", re.MULTILINE)
STEPS = 9
"""Lines with which mmdebstrap tells its stages, for the fraction."""
SIZE_FACTOR = 8
"""Bytes needed while building, for each byte of packages: tree, file system and apt's lists (measured: 6)."""

Fill = Callable[[Path, Owners], Awaitable[None]]
"""Puts more into a tree than packages."""


async def build_rootfs(store: ImageStore, apt: Apt, on_progress: OnProgress) -> Image:
    """Give the root file system ``debian`` from the versions that apt offers now; its primary file is ``rootfs.ext4``.

    Raises:
        HostUnfit: a tool or right is missing, or apt has no archive of this release.
        Unavailable: a download failed.
        NoSpace: the disk is or would be full.
    """
    return await build_system(store, apt, rootfs_recipe(), on_progress)


async def build_system(
    store: ImageStore,
    apt: Apt,
    recipe: RootfsRecipe,
    on_progress: OnProgress,
    *,
    name: str = NAME,
    inputs: Mapping[str, object] | None = None,
    fill: Fill | None = None,
) -> Image:
    """Give the root file system ``name`` with a recipe's packages, and with what ``fill`` puts there of ``inputs``.

    Raises: as ``build_rootfs``.
    """
    release = read_release()
    chosen = await find_sources(apt, release)
    closure = await apt.closure([*(source.line() for source in chosen)], required_packages(recipe))
    key = build_key(
        ImageKind.ROOTFS,
        {
            "recipe": msgspec.to_builtins(recipe),
            "sources": [source.line() for source in chosen],
            "packages": sorted(closure),
            **(inputs or {}),
        },
    )

    async def build(staging: Path) -> Made:
        files.require_free(staging, sum(closure.values()) * SIZE_FACTOR)
        tree, owners = staging / "tree", owners_for(staging)
        await bootstrap(apt, recipe, release, chosen, staging, owners, on_progress)
        installed = parse_installed((tree / "var/lib/dpkg/status").read_text())
        on_progress(Progress(stage=ImageKind.ROOTFS, fraction=0.8, message="trimming"))
        await on_own_thread("finish", lambda: finish_tree(tree, recipe, chosen))
        await owners.give(tree / "home" / recipe.user, recipe.uid)
        if fill is not None:
            await fill(tree, owners)
        on_progress(Progress(stage=ImageKind.ROOTFS, fraction=0.85, message="making the file system"))
        await make_ext4(tree, staging / "rootfs.ext4", label=name, size_mib=recipe.size_mib, seed=key, owners=owners)
        await remove(tree)
        forget(staging)
        on_progress(Progress(stage=ImageKind.ROOTFS, fraction=0.95, message="computing checksums"))
        return Made(
            primary="rootfs.ext4",
            facts={"release": release.codename, "user": recipe.user, "packages": installed},
        )

    image = await store.obtain(ImageKind.ROOTFS, name, key, build, on_progress)
    on_progress(Progress(stage=ImageKind.ROOTFS, fraction=1.0, message=image.id))
    return image


async def rootfs_from_tree(
    store: ImageStore, source: Path, name: str, *, size_mib: int = 256, on_progress: OnProgress = ignore_progress
) -> Image:
    """Give a root file system that holds a directory's or tar archive's files and the mount points a guest needs.

    Owners, modes, links and device nodes are kept. ``size_mib`` is the virtual size of the ext4.

    Raises:
        InvalidInput: ``source`` is neither a directory nor a file, or ``name`` is not free for a root file system.
        CommandFailed: the archive is damaged, or its files do not fit into ``size_mib``.
        NoSpace: the disk is full.
    """
    content = await on_own_thread("hash", lambda: hash_source(source))
    key = build_key(ImageKind.ROOTFS, {"content": content, "size_mib": size_mib, "name": name})

    async def build(staging: Path) -> Made:
        tree, owners = staging / "tree", owners_for(staging)
        tree.mkdir(mode=0o755)
        copy = [*owners.books, *copy_command(source, tree)]
        await tools.run(copy, timeout_s=COPY_TIMEOUT_S, where=staging, environment=owners.environment)
        add_mount_points(tree)
        await make_ext4(tree, staging / "rootfs.ext4", label=name, size_mib=size_mib, seed=key, owners=owners)
        await remove(tree)
        forget(staging)
        return Made(primary="rootfs.ext4", facts={"from": source.name})

    return await store.obtain(ImageKind.ROOTFS, name, key, build, on_progress)


def copy_command(source: Path, tree: Path) -> list[str]:
    """Give the command that puts a directory's or an archive's files into the existing directory ``tree``."""
    if source.is_dir():
        return ["cp", "-a", "--reflink=auto", "--", f"{source.absolute()}/.", str(tree)]
    return ["tar", "--numeric-owner", "-xpf", str(source.absolute()), "-C", str(tree)]


async def find_sources(apt: Apt, release: Release) -> list[sources.Source]:
    """Choose the host's sources that are the distribution's archive for its own release.

    Raises:
        HostUnfit: there is none.
    """
    configured = sources.read_sources()

    async def choose() -> list[sources.Source]:
        releases = sources.parse_index_targets(await apt.index_targets())
        return sources.archive_sources(configured, releases, family=release.family, codename=release.codename)

    chosen = await choose()
    if not chosen:
        await apt.refresh()
        chosen = await choose()
    if not chosen:
        raise HostUnfit(
            "apt has no archive of this release",
            details=f"none of {len(configured)} configured sources is {release.family}'s archive of {release.codename}",
            resolution="add the distribution's own archive to /etc/apt/sources.list and run 'apt-get update'",
        )
    return chosen


def required_packages(recipe: RootfsRecipe) -> list[str]:
    """Name what mmdebstrap's minbase variant installs, as apt patterns, and the recipe's packages."""
    return ["?essential", "?priority(required)", "apt", *recipe.packages]


@dataclass(frozen=True, kw_only=True)
class Places:
    """What mmdebstrap reads and writes."""

    source_list: Path
    archives: Path
    tree: Path


def bootstrap_command(
    recipe: RootfsRecipe, release: Release, places: Places, options: list[str], hooks: Sequence[str] = ()
) -> list[str]:
    """Give mmdebstrap's command line; ``options`` are apt's own, ``Name "value";``, ``hooks`` are its own.

    The packages fetched before are copied in, which it would otherwise refuse to find there.
    """
    return [
        "mmdebstrap",
        "--mode=root",
        f"--variant={recipe.variant}",
        "--format=directory",
        f"--include={','.join(recipe.packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.exclude),
        *(f"--dpkgopt=path-include={pattern}" for pattern in recipe.include),
        '--aptopt=Acquire::Languages "none";',
        *(f"--aptopt={option}" for option in options),
        "--skip=download/empty",
        *hooks,
        '--setup-hook=mkdir -p "$1/var/cache/apt/archives"',
        f"--setup-hook=sync-in {places.archives} /var/cache/apt/archives",
        release.codename,
        str(places.tree),
        str(places.source_list),
    ]


async def bootstrap(
    apt: Apt,
    recipe: RootfsRecipe,
    release: Release,
    chosen: list[sources.Source],
    staging: Path,
    owners: Owners,
    on_progress: OnProgress,
) -> None:
    """Install the packages into ``staging/tree``."""
    lines = [source.line() for source in chosen]
    source_list = staging / "sources.list"
    source_list.write_text("".join(f"{line}\n" for line in lines))
    scratch = staging / "scratch"
    scratch.mkdir()

    def fetched(fraction: float) -> None:
        on_progress(Progress(stage=ImageKind.ROOTFS, fraction=0.3 * fraction, message="downloading packages"))

    archives = await apt.prefetch(lines, required_packages(recipe), fetched)
    seen = 0

    def told(line: str) -> None:
        nonlocal seen
        if line.startswith("I: ") and "hook" not in line:
            seen += 1
            fraction = 0.3 + 0.45 * min(1.0, seen / STEPS)
            on_progress(
                Progress(stage=ImageKind.ROOTFS, fraction=fraction, message=line.removeprefix("I: ").rstrip("."))
            )

    places = Places(source_list=source_list, archives=archives, tree=staging / "tree")
    argv = bootstrap_command(recipe, release, places, await fetch_settings(), owners.hooks)
    try:
        await tools.run(
            [*owners.prefix, *argv],
            timeout_s=BOOTSTRAP_TIMEOUT_S,
            where=staging,
            environment={**owners.environment, "TMPDIR": str(scratch)},
            on_line=told,
        )
    except process.CommandFailed as error:
        if tools.is_about_network(error):
            raise tools.fetch_failed("the root file system's packages could not be fetched", error) from error
        raise
    await remove(scratch)
    source_list.unlink()


def parse_installed(status: str) -> list[str]:
    """Read dpkg's status file: ``name version`` of every package, sorted."""
    return sorted(f"{name} {version}" for name, version in INSTALLED.findall(status))


def finish_tree(tree: Path, recipe: RootfsRecipe, chosen: list[sources.Source]) -> None:
    """Take out traces of the build and put in what every guest needs."""
    trim(tree, recipe.remove)
    add_mount_points(tree)
    for directory in ("var/cache/apt/archives/partial", "var/lib/apt/lists/partial", "var/log/apt"):
        (tree / directory).mkdir(parents=True, exist_ok=True)
    for empty in ("etc/machine-id", "etc/resolv.conf"):
        (tree / empty).write_text("")
    (tree / "etc/hostname").write_text("sandbox\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost sandbox\n::1 localhost sandbox\n")
    lines = "".join(f"{source.without_password().line()}\n" for source in chosen)
    (tree / "etc/apt/sources.list").write_text(lines)
    (tree / "etc/apt/apt.conf.d/90sandbox").write_text('Acquire::Languages "none";\n')
    add_account(tree, Account(name=recipe.user, uid=recipe.uid))


def hash_source(source: Path) -> str:
    """Hash a directory or an archive.

    Raises:
        InvalidInput: it is neither.
    """
    if source.is_dir():
        return hash_tree(source)
    if source.is_file():
        return files.hash_file(source)
    raise InvalidInput("no such directory or archive", details=str(source), field="source")


def hash_tree(root: Path) -> str:
    """Hash a tree's names, types, modes, owners and contents; times do not count."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = ""
        if stat.S_ISLNK(status.st_mode):
            content = str(path.readlink())
        elif stat.S_ISREG(status.st_mode):
            content = files.hash_file(path)
        fields = (path.relative_to(root), status.st_mode, status.st_uid, status.st_gid, status.st_rdev, content)
        digest.update("\0".join(str(field) for field in fields).encode() + b"\n")
    return digest.hexdigest()
