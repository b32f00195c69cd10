"""Root file systems of container images: layers, or an archive somebody sent, unpacked by a process without a say and
made an ext4 file without mounting anything. See docs/decisions/oci.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from hearth.errors import NoSpace, TimedOut
from hearth.host import process
from hearth.image import tools
from hearth.image.filesystem import MEBIBYTE, MOUNT_POINTS, make_ext4
from hearth.image.layers.orders import Outcome, Problem, Told, UnpackOrder
from hearth.image.layers.refused import ImageRefused, refused
from hearth.image.oci.documents import Defaults, Platform
from hearth.image.owners import Owners, forget, owners_for
from hearth.image.recipe import rootfs_recipe
from hearth.image.store import Made, remove

ROOTFS = "rootfs.ext4"
UNPACK_TIMEOUT_S = 3600.0
ADDRESS_SPACE_BYTES = 4 << 30
"""Of the process that unpacks; half a million files take some 0.4 GiB of it."""
MAX_ENTRIES = 500_000
BYTES_A_NAME = 20 * 1024
"""Of the ext4, for each name: mke2fs makes an inode for every 16 KiB."""
CAPABILITIES = ("chown", "dac_override", "fowner", "fsetid", "mknod", "setfcap", "sys_chroot")
ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_FACT = 4096
MAX_LABELS = 64

OnTold = Callable[[Told], None]


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a root file system is made of: layers with the checksums of their contents, or an archive.

    Args:
        defaults: what the image says of programs; of an archive that is an image its own count.
        max_bytes: what may come out of it.
    """

    platform: Platform
    max_bytes: int
    layers: tuple[Path, ...] = ()
    diff_ids: tuple[str, ...] = ()
    archive: Path | None = None
    defaults: Defaults = field(default_factory=Defaults)
    facts: Mapping[str, Any] = field(default_factory=dict)


async def build_container(source: Source, staging: Path, *, label: str, seed: str, on_told: OnTold) -> Made:
    """Make ``rootfs.ext4`` in an image's staging directory.

    Raises:
        ImageRefused: it cannot be used: damaged, hostile, too large.
        NoSpace: the disk is full.
    """
    tree, owners = staging / "tree", owners_for(staging)
    tree.mkdir(mode=0o700)
    order = UnpackOrder(
        tree=str(tree),
        layers=[str(path) for path in source.layers],
        diff_ids=list(source.diff_ids),
        archive=None if source.archive is None else str(source.archive),
        architecture=source.platform.architecture,
        variant=source.platform.variant,
        working_dir=source.defaults.working_dir or "",
        directories=MOUNT_POINTS,
        max_bytes=source.max_bytes,
        max_entries=MAX_ENTRIES,
    )
    outcome = await _unpack(order, owners, staging, on_told)
    (staging / "spool.tar").unlink(missing_ok=True)
    size_mib = size_of(outcome)
    on_told(Told(stage="creating", done=0, total=0))
    await make_ext4(tree, staging / ROOTFS, label=label, size_mib=size_mib, seed=seed, owners=owners)
    await remove(tree)
    forget(staging)
    said = outcome.defaults if source.archive is not None else source.defaults
    return Made(primary=ROOTFS, facts={**source.facts, **facts_of(said), "files": outcome.names})


def size_of(outcome: Outcome) -> int:
    """Give the virtual size in MiB of the file system for a tree: that of the standard image, or what it takes."""
    needed = outcome.data_bytes + outcome.data_bytes // 8 + outcome.names * BYTES_A_NAME
    return max(rootfs_recipe().size_mib, -(-needed // MEBIBYTE) + 256)


def facts_of(said: Defaults) -> dict[str, Any]:
    """Give what is kept of an image's configuration: ``config``, with nothing in it that no program could be given."""
    env = {}
    for each in said.env or ():
        name, equals, value = each.partition("=")
        if equals and ENV_NAME.fullmatch(name):
            env[name] = value
    config: dict[str, Any] = {"env": env}
    if said.working_dir:
        config["working_dir"] = said.working_dir[:MAX_FACT]
    # "name:group" and "uid:gid" say more than a command can be told: its group is the one of the user.
    config["user"] = (said.user or "").partition(":")[0][:128] or "root"
    for name, words in (("entrypoint", said.entrypoint), ("cmd", said.cmd)):
        if words:
            config[name] = [word[:MAX_FACT] for word in words[:64]]
    if said.labels:
        config["labels"] = {name[:256]: value[:MAX_FACT] for name, value in [*said.labels.items()][:MAX_LABELS]}
    return {"config": config}


def confined(file_max_bytes: int, *, real: bool) -> list[str]:
    """Give the words before the program that unpacks: bounds, no network, and of root's rights what a tree takes."""
    bounds = {
        "as": ADDRESS_SPACE_BYTES,
        "cpu": int(UNPACK_TIMEOUT_S),
        "fsize": file_max_bytes,
        "nofile": 512,
        "core": 0,
    }
    words = [*tools.DIES_WITH_US]
    if real:
        kept = ",".join(f"+{name}" for name in CAPABILITIES)
        words += ["unshare", "--net", "--ipc", "--uts", "--"]
        words += ["setpriv", "--no-new-privs", "--inh-caps", "-all", "--bounding-set", f"-all,{kept}", "--"]
    return [*words, "prlimit", *(f"--{name}={most}" for name, most in bounds.items()), "--"]


async def _unpack(order: UnpackOrder, owners: Owners, staging: Path, on_told: OnTold) -> Outcome:
    program = [sys.executable, "-I", "-m", "hearth.image.layers.unpack"]
    argv = [*confined(order.max_bytes, real=owners.are_real), *owners.books, *program]

    def told(line: str) -> None:
        try:
            on_told(msgspec.json.decode(line, type=Told))
        except msgspec.DecodeError:
            return  # words of a tool, which are shown should it fail

    try:
        completed = await process.run(
            argv,
            timeout_s=UNPACK_TIMEOUT_S,
            environment=owners.environment,
            cwd=staging,
            stdin=msgspec.json.encode(order),
            on_line=told,
        )
    except process.CommandFailed as error:
        raise _failure(error, staging) from error
    except TimedOut as error:
        raise refused(f"it took more than {UNPACK_TIMEOUT_S:g} s to unpack") from error
    said = msgspec.json.decode(completed.stdout, type=Outcome | Problem)
    if isinstance(said, Problem):
        raise ImageRefused(said.brief, details=said.details, resolution=said.resolution, field="image")
    return said


def _failure(error: process.CommandFailed, staging: Path) -> Exception:
    """Tell what a program died of that could not say it itself: no space, or the bounds it has."""
    lines = [line for line in error.output.strip().splitlines() if not line.startswith("{")]
    if any(tools.FULL in line for line in lines):
        return NoSpace(
            "the disk is full", details=f"{staging}: {lines[-1]}", resolution="free some space and do it again"
        )
    if error.status < 0:
        return refused(f"unpacking it was ended by signal {-error.status}: it took too much time or memory")
    return process.CommandFailed(["unpack"], error.status, "\n".join(lines[-5:]))
