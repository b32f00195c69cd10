"""Gives a new machine its files and runs its commands; the first that fails ends the whole."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from hearth.errors import Conflict, Forbidden, GuestFailed, InitFailed, InvalidInput, NotFound, StartFailed, TooLarge
from hearth.guest.client import Guest
from hearth.outfit import Command, GuestFile, Outfit, argv_of
from hearth.wire.messages import ExecRequest

USUAL_MODE = "0644"
SHOWN_BYTES = 4096
"""Of what a failed command wrote, its end."""
SHOWN_WORDS = 120


async def write_files(guest: Guest, files: Sequence[GuestFile]) -> None:
    """Write files, one after the other; directories above them are made.

    Raises:
        InvalidInput: one cannot be written there; ``field`` names it.
        NoSpace, TimedOut, GuestFailed: the guest's disk is full, or the guest does not answer.
    """
    for number, file in enumerate(files):
        try:
            await guest.files.write(file.guest_path, file.content, mode=file.mode or USUAL_MODE)
        except (Conflict, Forbidden, InvalidInput, NotFound, TooLarge) as error:
            field = f"files[{number}].guest_path"
            raise InvalidInput(
                "a file cannot be written in the sandbox",
                details=f"{field}: {file.guest_path[:200]!r}: {error.details or error.brief}",
                resolution="choose another path, or another image",
                field=field,
            ) from error


async def run_init(guest: Guest, outfit: Outfit, user: str | None) -> None:
    """Run the commands as ``user`` (None: as whoever the machine's commands run as).

    Raises:
        InitFailed: one could not be started, failed, or all together took too long; the output is in the details.
    """
    ending = asyncio.get_running_loop().time() + outfit.init_timeout_s
    for number, command in enumerate(outfit.init):
        tail = _Tail()
        what = f"init[{number}]"
        try:
            async with asyncio.timeout_at(ending):
                status = await _run(guest, command, user, tail)
        except TimeoutError as error:
            reason = f"{what} was ended: the commands took longer than {outfit.init_timeout_s:g} s"
            raise _failed(reason, command, tail, "give init_timeout_s, or do less") from error
        except StartFailed as error:
            raise _failed(f"{what} could not be started", command, tail, error.details) from error
        except GuestFailed as error:
            raise _failed(f"{what} ended with its machine", command, tail, "give it more memory") from error
        if status != 0:
            resolution = "nothing is left of the sandbox: correct the command and create it again"
            raise _failed(f"{what} exited with {status}", command, tail, resolution)


async def _run(guest: Guest, command: Command, user: str | None, tail: _Tail) -> int:
    async with guest.start(ExecRequest(argv=argv_of(command), user=user)) as execution:
        await execution.close_stdin()
        async for output in execution:
            tail.add(output.data)
        return execution.exit_code


class _Tail:
    """The end of what was written."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._size = 0

    def add(self, data: bytes) -> None:
        self._pieces.append(data[-SHOWN_BYTES:])
        self._size += len(self._pieces[-1])
        while self._size - len(self._pieces[0]) >= SHOWN_BYTES:
            self._size -= len(self._pieces.popleft())

    def text(self) -> str:
        """Give it for people: what does not print is escaped, lines stay lines."""
        text = b"".join(self._pieces)[-SHOWN_BYTES:].decode("utf-8", "replace").rstrip()
        return "".join(
            letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode_escape").decode()
            for letter in text
        )


def _failed(reason: str, command: Command, tail: _Tail, resolution: str) -> InitFailed:
    words = " ".join(argv_of(command)) if not isinstance(command, str) else command
    shown = words[:SHOWN_WORDS] + ("…" if len(words) > SHOWN_WORDS else "")
    output = tail.text()
    details = f"{reason}: {shown!r}; " + (f"it wrote:\n{output}" if output else "it wrote nothing")
    return InitFailed("a command of init failed", reason=reason, details=details, resolution=resolution)
