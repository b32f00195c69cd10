"""The one door through which hearth runs programs: argument lists, closed stdin, a small environment, a tail of what
went wrong. Long-lived children (the VMM) go through ``spawn``; tools that run to an end go through ``run``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from hearth.errors import HearthError, HostUnfit, TimedOut

log = structlog.get_logger(__name__)

SMALL_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
    "HOME": "/",
}
TAIL_BYTES = 4096


class CommandFailed(HearthError):
    """A tool ended with a status other than 0; ``details`` holds the command and the tail of its output."""

    def __init__(self, argv: Sequence[str], status: int, output: str) -> None:
        super().__init__(f"{argv[0]} failed with status {status}", details=f"{' '.join(argv)}\n{output.strip()}")
        self.status = status
        self.output = output


@dataclass(frozen=True, kw_only=True)
class Completed:
    """What a finished tool wrote, in bytes, and how long it took."""

    stdout: bytes
    stderr: bytes
    duration_s: float


async def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    stdin: bytes | None = None,
    on_line: Callable[[str], None] | None = None,
) -> Completed:
    """Run a tool to its end in a process group of its own; the group is killed on timeout and cancellation.

    Args:
        argv: program and arguments, never a shell line.
        timeout_s: seconds until the group is killed.
        environment: added to a small fixed environment (``LC_ALL=C``).
        stdin: bytes to feed; otherwise stdin is /dev/null.
        on_line: called with each line of stderr, for progress.

    Raises:
        HostUnfit: the program is not installed.
        CommandFailed: it ended with a status other than 0.
        TimedOut: it was killed for taking too long.
    """
    started = time.monotonic()
    log.debug("run", argv=list(argv))
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**SMALL_ENVIRONMENT, **(environment or {})},
            cwd=cwd,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise HostUnfit(
            f"{argv[0]} is not installed",
            details=str(error),
            resolution="run 'make setup' or install its package",
        ) from error
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr = await _communicate(process, stdin, on_line)
    except TimeoutError as error:
        raise TimedOut(f"{argv[0]} took longer than {timeout_s:g} s", details=" ".join(argv)) from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        tail = (stderr or stdout)[-TAIL_BYTES:].decode("utf-8", "replace")
        raise CommandFailed(argv, process.returncode or 0, tail)
    return Completed(stdout=stdout, stderr=stderr, duration_s=time.monotonic() - started)


async def _communicate(
    process: asyncio.subprocess.Process, stdin: bytes | None, on_line: Callable[[str], None] | None
) -> tuple[bytes, bytes]:
    if on_line is None:
        return await process.communicate(stdin)
    if process.stdout is None or process.stderr is None:
        raise AssertionError("both outputs are piped")
    stderr = process.stderr
    lines: list[bytes] = []

    async def follow() -> None:
        async for line in stderr:
            lines.append(line)
            on_line(line.decode("utf-8", "replace").rstrip())

    async with asyncio.TaskGroup() as group:
        group.create_task(follow(), name="stderr")
        output = group.create_task(process.stdout.read(), name="stdout")
        if stdin is not None and process.stdin is not None:
            process.stdin.write(stdin)
            await process.stdin.drain()
            process.stdin.close()
    await process.wait()
    return output.result(), b"".join(lines)
