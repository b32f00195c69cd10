"""Files of a sandbox: what is asked of them in queries, and what is told of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from hearth.api.limits import MAX_PATH_BYTES
from hearth.api.patterns import FILE_MODE_BITS, GUEST_FILE

NO_NUL = r"^[^\x00]*$"
MAX_NUMBER = 2**63 - 1
Path = Annotated[
    str,
    Meta(
        pattern=GUEST_FILE,
        max_length=MAX_PATH_BYTES,
        description="An absolute path in the sandbox. Bytes that are not UTF-8 travel percent-encoded.",
    ),
]
Number = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]


class FileAt(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Which file or directory."""

    path: Path


class ReadFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query of a read. Without more words the whole file; a ``Range`` header asks for bytes.

    ``offset`` is the first line, counted from 1, ``limit`` how many; whichever of ``limit`` and ``max_bytes`` is met
    first ends it. ``ls`` lists a directory instead. With ``Accept: application/x-tar`` a directory or file is packed.
    """

    path: Path
    offset: Annotated[int, Meta(ge=1, le=MAX_NUMBER)] | None = None
    limit: Number | None = None
    max_bytes: Number | None = None
    ls: bool = False


class WriteFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query of a write. Without ``mode`` (octal) an existing file keeps its own, a new one has 0644.

    ``user`` (a name or uid of the sandbox) is whose it becomes, with the directories made for it; without it an
    existing file keeps its owner, and a new one has that of its directory.

    With ``Content-Type: application/x-tar`` the body is unpacked below the directory ``path``, which is made if need
    be.
    """

    path: Path
    mode: Annotated[str, Meta(pattern=FILE_MODE_BITS)] | None = None
    user: Annotated[str, Meta(pattern=NO_NUL, min_length=1, max_length=256)] | None = None


class RemoveFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query of a removal: a file, a symlink itself, an empty directory, or with ``recursive`` a whole tree."""

    path: Path
    recursive: bool = False


class FileView(Struct, frozen=True, kw_only=True):
    """One entry of a directory; a symlink is told of as itself.

    ``mode`` is 4 octal digits. A name that is not UTF-8 is shown with U+FFFD in it, and ``name_base64`` holds its
    bytes.
    """

    name: str
    size: int
    mode: str
    is_dir: bool
    modified_at: datetime
    name_base64: str | None = None


class FileList(Struct, frozen=True, kw_only=True):
    """A directory's entries, sorted. ``total`` is how many it has: no more than 10 000 are told."""

    items: list[FileView]
    total: int
