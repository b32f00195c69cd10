"""What a new sandbox gets before it is its user's: files and commands. The conventions are those of ``schemas``."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from hearth.bounds import (
    MAX_DISK_MIB,
    MAX_EXEC_TIMEOUT_S,
    MAX_FILES,
    MAX_FILES_BYTES,
    MAX_INIT_BYTES,
    MAX_INIT_COMMANDS,
)

_END = r"$(?!\n)"
GUEST_PATH = r"^/[^\x00]*[^/\x00]" + _END
FILE_MODE = r"^0?[0-7]{3,4}" + _END
_Word = Annotated[str, Meta(pattern=r"^[^\x00]*$", max_length=MAX_INIT_BYTES)]
# The line has no pattern: of a text with one that may be a list instead, msgspec 0.22 frees the pattern once too often,
# and the process crashes at its next collection of garbage. ``hearth.outfit`` refuses what a pattern would.
InitCommand = (
    Annotated[str, Meta(min_length=1, max_length=MAX_INIT_BYTES)]
    | Annotated[list[_Word], Meta(min_length=1, max_length=MAX_INIT_COMMANDS)]
)
InitCommands = Annotated[
    list[InitCommand],
    Meta(
        max_length=MAX_INIT_COMMANDS,
        description="Commands that run once, as root, in this order, before the sandbox is there: lines for /bin/sh, "
        "or lists of a program and its arguments. The first that fails undoes the whole creation.",
    ),
]
InitTime = Annotated[
    float, Meta(ge=1, le=MAX_EXEC_TIMEOUT_S, description="Seconds that all commands of init may take together.")
]
DiskMb = Annotated[
    int, Meta(ge=1, le=MAX_DISK_MIB, description="Size of the root disk in MiB, at least that of the image.")
]


class NewFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A file of a new sandbox, written before ``init`` runs; directories above it are made.

    ``mode`` is in octal digits (0644 unless given). With ``encoding`` base64 ``content`` holds any bytes.
    """

    guest_path: Annotated[
        str, Meta(pattern=GUEST_PATH, max_length=4096, description="The absolute path of a file in the sandbox.")
    ]
    content: str
    mode: Annotated[str, Meta(pattern=FILE_MODE, description="Octal digits, such as 0755.")] | None = None
    encoding: Literal["utf-8", "base64"] = "utf-8"


NewFiles = Annotated[
    list[NewFile],
    Meta(max_length=MAX_FILES, description=f"Files, of {MAX_FILES_BYTES} bytes together at most."),
]
