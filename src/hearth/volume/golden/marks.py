"""Files that say themselves whose they are: what is known of a volume stands in an extended attribute of its file.

It comes into being with the file, in one step, goes where the file goes when names are swapped, and is still there when
hearth was installed anew. Root writes it where only root can; a machine that has the file open cannot change it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from hearth.host import files
from hearth.volume.golden.base import GoldenVolume

log = structlog.get_logger(__name__)

ATTRIBUTE = "trusted.hearth.volume" if os.geteuid() == 0 else "user.hearth.volume"
"""xattr(7): attributes of the first kind are for CAP_SYS_ADMIN alone."""
UNMARKABLE = frozenset({errno.EOPNOTSUPP, errno.EPERM, errno.EISDIR, errno.EINVAL})
UNFINISHED = re.compile(r"(?P<name>.+)\.[0-9a-f]{12}\.tmp")
"""As ``hearth.host.files.temporary_beside`` makes them."""


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file.

    ``base`` names the file a clone lies over; whoever is a base itself has no job. ``home`` is the data directory of
    whoever makes the file: nobody else takes it for left behind.
    """

    name: str
    format: str
    size_bytes: int
    job: str
    image: str
    base: str = ""
    home: str = ""
    is_base: bool = False
    tags: dict[str, str] = {}


TRIAL = Mark(name="", format="raw", size_bytes=0, job="", image="")


class CannotMark(Exception):
    """This file system has no such attributes, or files without a name, or we may not write them."""


def can_mark(directory: Path) -> bool:
    """Tell whether files of a directory can be marked; nothing is left of the trial."""
    try:
        descriptor = _nameless(directory)
    except (CannotMark, OSError) as error:
        log.info("files cannot be marked here", directory=str(directory), why=str(error))
        return False
    os.close(descriptor)
    return True


def _nameless(directory: Path, mark: Mark = TRIAL) -> int:
    try:
        descriptor = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in UNMARKABLE:
            raise CannotMark(f"{directory}: {error.strerror}") from error
        raise
    try:
        _set(descriptor, mark)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def make_marked(path: Path, mark: Mark) -> int:
    """Make a file that was not there, marked from its first moment on, and give its descriptor.

    Raises:
        CannotMark: not here.
        FileExistsError: there is one.
        NoSpace: the file system is full.
    """
    with files.space_errors(path):
        descriptor = _nameless(path.parent, mark)
        try:
            directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                # With a directory given the link of /proc is followed to the file itself (linkat(2)).
                os.link(f"/proc/self/fd/{descriptor}", path.name, dst_dir_fd=directory)
            finally:
                os.close(directory)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def change_mark(descriptor: int, mark: Mark) -> None:
    """Mark an open file anew."""
    with files.space_errors(Path(mark.name)):
        _set(descriptor, mark)


def _set(descriptor: int, mark: Mark) -> None:
    try:
        os.setxattr(descriptor, ATTRIBUTE, msgspec.json.encode(mark))
    except OSError as error:
        if error.errno in UNMARKABLE:
            raise CannotMark(f"no attribute {ATTRIBUTE} can be written: {error.strerror}") from error
        raise


def read_mark(path: Path) -> Mark | None:
    """Give what a file says of itself; None where it is none of ours, or gone."""
    try:
        return msgspec.json.decode(os.getxattr(path, ATTRIBUTE, follow_symlinks=False), type=Mark)
    except OSError as error:
        if error.errno in UNMARKABLE or error.errno in (errno.ENODATA, errno.ENOENT):
            return None
        raise
    except msgspec.DecodeError as error:
        log.warning("what is known of a volume cannot be read", path=str(path), why=str(error))
        return None


def published(directory: Path) -> Iterator[tuple[Path, Mark]]:
    """Give the files of a directory that are ours and have the name they are marked with, bases too."""
    for path, mark in _marked(directory):
        if mark.name == path.name:
            yield path, mark


def unfinished(directory: Path) -> Iterator[tuple[Path, Mark]]:
    """Give the files of a directory that are ours and have no name yet, or none any more."""
    for path, mark in _marked(directory):
        found = UNFINISHED.fullmatch(path.name)
        if found is not None and found["name"] == mark.name:
            yield path, mark


def _marked(directory: Path) -> Iterator[tuple[Path, Mark]]:
    for path in sorted(directory.iterdir()):
        with contextlib.suppress(FileNotFoundError):
            mark = read_mark(path)
            if mark is not None and path.is_file() and not path.is_symlink():
                yield path, mark


def volume_of(path: Path, mark: Mark) -> GoldenVolume:
    """Give a published file as a volume."""
    return GoldenVolume(
        name=mark.name,
        path=path,
        size_bytes=mark.size_bytes,
        format=mark.format,
        job=mark.job,
        image=mark.image,
        tags=mark.tags,
        base=path.parent / mark.base if mark.base else None,
        base_format=_format_of(path.parent / mark.base) if mark.base else "raw",
    )


def _format_of(base: Path) -> str:
    mark = read_mark(base)
    return mark.format if mark is not None and mark.is_base else "raw"
