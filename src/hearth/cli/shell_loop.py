"""A session at our terminal: keys in, output out, until one of both ends it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from hearth.cli.terminal import STDIN, RawTerminal, terminal_size
from hearth.sdk.async_session import AsyncSession

READ_BYTES = 65_536
ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


@dataclass(frozen=True, kw_only=True)
class Left:
    """How it ended: with the session's exit code, by a signal to us, or, with neither, because we were to detach."""

    exit_code: int | None = None
    signal: int | None = None


class ShellLoop:
    """Carries one session; the terminal is raw as long as ``run`` lasts, and then as it was."""

    def __init__(self, session: AsyncSession, *, detach_byte: int | None) -> None:
        self._session = session
        self._detach_byte = detach_byte
        self._terminal = RawTerminal()
        self._resized = asyncio.Event()
        self._told: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self) -> Left:
        """Go on until the session ends, the detach key is pressed, the terminal is hung up or a signal comes.

        Raises:
            HearthError: the session is gone, another client took it, or the daemon stayed away.
        """
        with self._terminal, self._signals():
            tasks = {
                name: asyncio.create_task(work, name=f"shell {name}")
                for name, work in (("output", self._show()), ("input", self._type()), ("size", self._resize()))
            }
            try:
                awaited: list[asyncio.Future[None] | asyncio.Future[int]] = [*tasks.values(), self._told]
                done, _ = await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
            finally:
                for task in tasks.values():
                    task.cancel()
                await asyncio.gather(*tasks.values(), return_exceptions=True)
        if self._session.exit_code is not None:
            return Left(exit_code=self._session.exit_code)
        return Left(signal=self._told.result() if self._told.done() else None)

    async def _show(self) -> None:
        async for data in self._session:
            self._terminal.show(data)

    async def _type(self) -> None:
        while True:
            await _readable(STDIN)
            try:
                keys = os.read(STDIN, READ_BYTES)
            except OSError:
                keys = b""  # the terminal was hung up
            typed, is_detached = self._until_detached(keys)
            if typed:
                await self._session.send(typed)
            if is_detached or not keys:
                return

    def _until_detached(self, keys: bytes) -> tuple[bytes, bool]:
        at = -1 if self._detach_byte is None else keys.find(self._detach_byte)
        return (keys, False) if at < 0 else (keys[:at], True)

    async def _resize(self) -> None:
        while True:
            await self._resized.wait()
            self._resized.clear()
            await self._session.resize(*terminal_size())

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self._resized.set)
        loop.add_signal_handler(signal.SIGTSTP, self._pause)
        for number in ENDING:
            loop.add_signal_handler(number, self._end, number)
        try:
            yield
        finally:
            for number in (signal.SIGWINCH, signal.SIGTSTP, *ENDING):
                loop.remove_signal_handler(number)

    def _end(self, number: int) -> None:
        if not self._told.done():
            self._told.set_result(number)

    def _pause(self) -> None:
        """Stand still as told, with the terminal as it was; go on when we are continued."""
        self._terminal.give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._terminal.take()
        self._resized.set()


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    found: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not found.done():
            found.set_result(None)

    loop.add_reader(descriptor, tell)
    try:
        await found
    finally:
        loop.remove_reader(descriptor)
