"""What a new sandbox gets before it is its user's: files, then commands that run once. Values and bounds; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from hearth.bounds import (
    DEFAULT_INIT_TIMEOUT_S,
    MAX_EXEC_TIMEOUT_S,
    MAX_FILES,
    MAX_FILES_BYTES,
    MAX_INIT_BYTES,
    MAX_INIT_COMMANDS,
)
from hearth.errors import InvalidInput

SHELL = ("/bin/sh", "-c")
MAX_PATH_BYTES = 4096
_MODE = re.compile(r"0?[0-7]{3,4}")

Command = str | tuple[str, ...]
"""A line for the sandbox's shell, or a program and its arguments."""


@dataclass(frozen=True, kw_only=True)
class GuestFile:
    """A file to be written: an absolute path in the guest, its bytes, its mode in octal digits (None: 0644)."""

    guest_path: str
    content: bytes = field(repr=False)
    mode: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outfit:
    """Files to write, then commands to run, one after the other; all commands together may take ``init_timeout_s``."""

    files: Sequence[GuestFile] = ()
    init: Sequence[Command] = ()
    init_timeout_s: float = DEFAULT_INIT_TIMEOUT_S

    def __bool__(self) -> bool:
        return bool(self.files or self.init)


NO_OUTFIT = Outfit()


def argv_of(command: Command) -> list[str]:
    """Give the program and arguments of a command."""
    return [*SHELL, command] if isinstance(command, str) else [*command]


def check_outfit(outfit: Outfit) -> None:
    """Refuse what no sandbox can be given.

    Raises:
        InvalidInput: ``field`` names the entry, such as ``files[2].guest_path``.
    """
    _check_count(len(outfit.files), MAX_FILES, "files")
    _check_count(len(outfit.init), MAX_INIT_COMMANDS, "init")
    if not 1 <= outfit.init_timeout_s <= MAX_EXEC_TIMEOUT_S:
        raise _invalid("init_timeout_s", f"it is {outfit.init_timeout_s:g}", f"use 1 to {MAX_EXEC_TIMEOUT_S} seconds")
    seen: dict[str, int] = {}
    for number, file in enumerate(outfit.files):
        _check_file(file, f"files[{number}]")
        if file.guest_path in seen:
            raise _invalid(
                f"files[{number}].guest_path",
                f"{_shown(file.guest_path)} is that of files[{seen[file.guest_path]}], too",
                "give each file once",
            )
        seen[file.guest_path] = number
    size = sum(len(file.content) for file in outfit.files)
    if size > MAX_FILES_BYTES:
        resolution = f"give {MAX_FILES_BYTES} bytes at most; more belongs into an image or a volume"
        raise _invalid("files", f"their contents have {size} bytes together", resolution)
    _check_commands(outfit.init)


def _check_file(file: GuestFile, name: str) -> None:
    path = file.guest_path
    if not path.startswith("/") or path.endswith("/") or "\0" in path or ".." in path.split("/"):
        resolution = "give the absolute path of a file, without '..'"
        raise _invalid(f"{name}.guest_path", f"{_shown(path)} is no path of a file", resolution)
    if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        raise _invalid(f"{name}.guest_path", f"it is longer than {MAX_PATH_BYTES} bytes", "use a shorter path")
    if file.mode is not None and _MODE.fullmatch(file.mode) is None:
        raise _invalid(f"{name}.mode", f"{_shown(file.mode)} is no mode", "write it in octal digits, such as 0755")


def _check_commands(commands: Sequence[Command]) -> None:
    size = 0
    for number, command in enumerate(commands):
        words = argv_of(command)
        if not (command.strip() if isinstance(command, str) else command and command[0]):
            raise _invalid(f"init[{number}]", "there is nothing to run", "give a shell line, or a program")
        if any("\0" in word for word in words):
            raise _invalid(f"init[{number}]", "it holds a NUL character", "leave it out")
        size += sum(len(word.encode("utf-8", "surrogatepass")) for word in words)
    if size > MAX_INIT_BYTES:
        resolution = f"give {MAX_INIT_BYTES} bytes at most; write a script with files, and run that"
        raise _invalid("init", f"the commands have {size} bytes together", resolution)


def _check_count(count: int, most: int, field_name: str) -> None:
    if count > most:
        raise _invalid(field_name, f"there are {count}", f"give {most} at most")


def _invalid(field_name: str, details: str, resolution: str) -> InvalidInput:
    return InvalidInput(
        f"invalid {field_name}", details=f"{field_name}: {details}", resolution=resolution, field=field_name
    )


def _shown(text: str) -> str:
    return repr(text[:80])
