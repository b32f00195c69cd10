"""Whose the files of a root file system are: really so where root builds it, remembered beside them where a user does.

A user's own user namespace lets the tools change their root directory and mount, but knows this one user only. So
``fakeroot`` keeps the books on owners, modes and device nodes for as long as the tree is made, and mke2fs copies them.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from hearth.errors import HostUnfit
from hearth.host import enclosure, files
from hearth.host.threads import on_own_thread
from hearth.image import tools

FAKEROOT = "fakeroot-sysv"
"""With System V messages in place of TCP: they work without a network and in a changed root directory."""
LIBRARY_PATTERN = "lib/*/libfakeroot/libfakeroot-sysv.so"
CHANGE_TIMEOUT_S = 60.0
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

MOUNT_SHIM = """\
#!/bin/sh
# There is no user 5 in a namespace of one user: devpts is mounted without naming one.
for word do
    shift
    case $word in *uid=5,*) word=noexec,nosuid,mode=620,ptmxmode=666 ;; esac
    set -- "$@" "$word"
done
exec /bin/mount "$@"
"""
MKNOD_SHIM = """\
#!/bin/sh
# A made-up device is none: mmdebstrap then binds this host's, as it does wherever it may not make any.
exit 1
"""


@dataclass(frozen=True, kw_only=True)
class Owners:
    """How tools are run on a tree so that its files get and keep their owners.

    Args:
        prefix: words before a command that mounts and starts others while it makes the tree.
        books: words before one that only reads or changes what is there.
        environment: for such a command.
        hooks: options for mmdebstrap.
    """

    prefix: tuple[str, ...] = ()
    books: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    hooks: tuple[str, ...] = ()
    are_real: bool = True

    async def give(self, path: Path, uid: int) -> None:
        """Give a directory and all below to a user and the group of the same number; links themselves, not targets."""
        if self.are_real:
            await on_own_thread("chown", lambda: _give(path, uid))
            return
        words = ["chown", "--recursive", "--no-dereference", f"{uid}:{uid}", "--", str(path)]
        environment = self.environment
        await tools.run([*self.books, *words], timeout_s=CHANGE_TIMEOUT_S, where=path.parent, environment=environment)


ROOTS = Owners(prefix=tools.OWN_WORLD)


def owners_for(staging: Path) -> Owners:
    """Give the way to keep owners that this user has; ``staging`` holds the books and shims of one build.

    Raises:
        HostUnfit: there is none.
    """
    if os.geteuid() == 0:
        return ROOTS
    require_users_means()
    library = _library()
    shims, books = staging / "shims", staging / "owners"
    shims.mkdir()
    for name, text in (("mount", MOUNT_SHIM), ("mknod", MKNOD_SHIM)):
        (shims / name).write_text(text)
        (shims / name).chmod(0o755)
    books.touch()
    inside = f'"$1"{shlex.quote(str(library.parent))}'
    words = (*tools.OWN_WORLD_OF_ONE, FAKEROOT, "-i", str(books), "-s", str(books), "--")
    return Owners(
        prefix=words,
        books=words,
        environment={"FAKEROOTDONTTRYCHOWN": "1", "PATH": f"{shims}:{SYSTEM_PATH}"},
        hooks=(
            '--aptopt=APT::Sandbox::User "root";',
            f"--setup-hook=mkdir -p {inside} && cp {shlex.quote(str(library))} {inside}/",
            f"--customize-hook=rm -r {inside}",
        ),
        are_real=False,
    )


def forget(staging: Path) -> None:
    """Remove what ``owners_for`` put there."""
    (staging / "owners").unlink(missing_ok=True)
    files.remove_tree(staging / "shims")


def require_users_means() -> None:
    """Refuse a host on which an ordinary user cannot build a root file system.

    Raises:
        HostUnfit: fakeroot is not installed, or the kernel permits no user namespaces.
    """
    _library()
    if (why := enclosure.obstacle()) is not None:
        raise HostUnfit(
            "images cannot be built without root on this host",
            details=f"a namespace for the build is refused: {why}",
            resolution=f"{enclosure.HOW_TO_PERMIT}, for 'hearth setup' alone",
        )


def _give(path: Path, uid: int) -> None:
    for each in (path, *path.rglob("*")):
        os.chown(each, uid, uid, follow_symlinks=False)


def _library() -> Path:
    found = next(iter(sorted(Path("/usr").glob(LIBRARY_PATTERN))), None)
    if found is None:
        raise HostUnfit(
            "images cannot be built without root on this host",
            details="fakeroot, which remembers the owners of a root file system's files, is not installed",
            resolution="apt-get install fakeroot, or run 'sudo hearth setup'",
        )
    return found
