"""A tree of files on its way to being a guest's disk: mount points, accounts, trimming and the ext4 itself."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from hearth.errors import NoSpace
from hearth.host import files, process
from hearth.image import tools
from hearth.image.owners import ROOTS, Owners

MEBIBYTE = 1024 * 1024
MOUNT_POINTS = {"proc": 0o555, "sys": 0o555, "dev": 0o755, "run": 0o755, "tmp": 0o1777, "etc": 0o755, "root": 0o700}
"""Directories the agent's init mounts on or writes into, with their modes; any root file system gets them."""
MAKE_TIMEOUT_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Account:
    """A user with a group of the same name and number, and a home directory."""

    name: str
    uid: int

    @property
    def home(self) -> str:
        return f"/home/{self.name}"


def add_mount_points(tree: Path) -> None:
    """Make the directories a guest needs; existing ones, and links to them, stay as they are."""
    for name, mode in MOUNT_POINTS.items():
        path = tree / name
        if not path.exists() and not path.is_symlink():
            path.mkdir()
            path.chmod(mode)


def add_account(tree: Path, account: Account) -> None:
    """Add a user to the tree by its files, without running any program of the tree; the password is locked.

    The home directory is the caller's to give to it.
    """
    name, number = account.name, account.uid
    shell = "/bin/bash" if (tree / "bin/bash").exists() else "/bin/sh"
    lines = {
        "etc/passwd": f"{name}:x:{number}:{number}::{account.home}:{shell}\n",
        "etc/group": f"{name}:x:{number}:\n",
        "etc/shadow": f"{name}:!:19000:0:99999:7:::\n",
        "etc/gshadow": f"{name}:!::\n",
    }
    for file, line in lines.items():
        with (tree / file).open("a") as stream:
            stream.write(line)
    home = tree / account.home.removeprefix("/")
    skeleton = tree / "etc/skel"
    if skeleton.is_dir():
        shutil.copytree(skeleton, home, symlinks=True)
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)


def trim(tree: Path, patterns: list[str]) -> None:
    """Remove what matches globs relative to the tree; links are removed, never followed."""
    for pattern in patterns:
        for path in sorted(tree.glob(pattern)):
            files.remove_tree(path)


async def make_ext4(tree: Path, target: Path, *, label: str, size_mib: int, seed: str, owners: Owners = ROOTS) -> None:
    """Make a sparse ext4 file of ``size_mib`` that holds the tree, without mounting anything.

    Its UUID and hash seed depend on ``seed`` alone. It has a journal, for a sandbox that died with its host boots from
    its disk again; a small one, for what is written there is written to every sandbox's overlay. All inode tables are
    initialised here, where zeros are holes, so that no guest does it in its background. Nothing is kept back for root.

    Raises:
        NoSpace: the host's disk is full.
        CommandFailed: the tree does not fit into ``size_mib``.
    """
    identity = str(uuid.uuid5(uuid.NAMESPACE_OID, seed))
    with files.space_errors(target), target.open("xb") as file:
        file.truncate(size_mib * MEBIBYTE)
    extended = f"lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0,hash_seed={identity}"
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), "-m", "0", "-L", label[:16], "-U", identity]
    journal = ["-J", "size=16"] if size_mib >= 512 else []
    try:
        await tools.run(
            [*owners.books, *argv, *journal, "-E", extended, str(target)],
            timeout_s=MAKE_TIMEOUT_S,
            where=target.parent,
            environment=owners.environment,
        )
    except process.CommandFailed as error:
        if shutil.disk_usage(target.parent).free < MEBIBYTE:
            raise NoSpace("the disk is full", details=f"{target}: {error.output.strip()}") from error
        raise
