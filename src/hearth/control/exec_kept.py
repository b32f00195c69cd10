"""One kept command: followed in the guest through lost connections, sleep and daemons that end, until it is over.

The agent keeps what it wrote until we say to have it; we say so when it is in the log. So whoever of us dies, the log
goes on exactly where it ended.
"""

from __future__ import annotations

import asyncio
import contextlib

import structlog

from hearth.control.exec_follow import Follower
from hearth.control.exec_index import ExecIndex
from hearth.control.exec_log import ExecLog
from hearth.control.exec_run import KILL, ExecOrder, Run, client_left
from hearth.control.fleet import Fleet
from hearth.control.sandboxes import ALIVE
from hearth.control.sleep import Sleep
from hearth.errors import Conflict, GuestFailed, HearthError, NotFound, TimedOut, Unavailable
from hearth.execs import Exec, timed_out
from hearth.guest.client import Guest
from hearth.guest.kept import KeptExecution, check_position
from hearth.host.clock import Clock
from hearth.model import Heat, Sandbox
from hearth.store.base import Store
from hearth.wire.messages import ExecRequest

log = structlog.get_logger(__name__)

AHEAD_BYTES = 4 * 1024 * 1024
"""So far a command may run ahead of its client; less than a log keeps, so that its client misses nothing."""
FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 5.0
"""Between attempts to reach a guest that should answer."""
ASLEEP_PAUSE_S = 0.25
"""Between two looks whether a sandbox is awake again; its row is read at few of them only."""
LOOKS_AT_ROW = 20
STDIN_CHUNK_BYTES = 65_536


class Surroundings:
    """What runs need of the daemon."""

    def __init__(self, *, store: Store, fleet: Fleet, sleep: Sleep, index: ExecIndex, clock: Clock) -> None:
        self.store = store
        self.fleet = fleet
        self.sleep = sleep
        self.index = index
        self.clock = clock


class KeptRun(Run):
    """See the module. ``look_after`` is the task that does it."""

    def __init__(self, found: Exec, written: ExecLog, around: Surroundings, *, order: ExecOrder | None) -> None:
        """``order`` is None for a command that an earlier daemon started."""
        super().__init__(found, written, around.index, around.clock)
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._around = around
        self._order = order
        self._stdin = b"" if order is None else order.stdin
        self._input_sent = 0
        self._client: Follower | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._kill_wanted = False
        self._fed = asyncio.Event()
        self._reachable = asyncio.Event()
        if order is None and not found.detached:
            self._linger()

    def attach(self, client: Follower) -> None:
        """Have a client that the command waits for and lives for, in place of any other."""
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if not self._exec.detached:
            self._client = client
            self.log.wake()

    def leave(self, client: Follower) -> None:
        """Note that a client went: unless it comes back in time, the command is killed."""
        if self._client is client and not self.is_over:
            self._linger()

    def give_up(self) -> None:
        """Kill it as soon as it can be reached: nobody knows of it."""
        self._nobody_came()

    def progressed(self) -> None:
        """Note that its client took output: the command may run on."""
        self.log.wake()

    async def reached(self, timeout_s: float) -> None:
        """Wait until it can be spoken to, or is over; no longer than ``timeout_s``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._reachable.wait()

    async def feed(self, data: bytes, *, ends: bool) -> None:
        await self._fed.wait()
        await super().feed(data, ends=ends)
        self._input_sent += len(data)

    async def look_after(self, sandbox: Sandbox | None) -> None:
        """Follow it to its end; ``sandbox`` is where to start it, None for one that runs."""
        try:
            if sandbox is not None and not await self._start(sandbox):
                return
            await self._follow()
        except HearthError as error:
            self.failed(error)
        finally:
            if self._leaving is not None:
                self._leaving.cancel()
            self._reachable.set()

    async def _start(self, sandbox: Sandbox) -> bool:
        """Start it and follow it as long as the connection lasts; False when it could not be started."""
        assert self._order is not None
        try:
            async with self._around.sleep.awake(sandbox) as guest:
                try:
                    await self._attend(guest, self._order.request)
                except (GuestFailed, TimedOut) as error:
                    if self.started.done():
                        log.info("command out of sight", command=self._exec.id, why=str(error))
                        return True
                    await self._withdraw(guest)
                    raise
        except HearthError as error:
            self.failed(error)
            if not self.started.done():
                self.started.set_exception(error)
            return False
        return True

    async def _follow(self) -> None:
        pause_s = FIRST_PAUSE_S
        while not self.is_over:
            guest = await self._awake()
            resident = self._around.sleep.residents[self._exec.sandbox_id]
            try:
                with resident.use():
                    await self._attend(guest, ExecRequest(keep=self._exec.id, after=self.log.end))
                pause_s = FIRST_PAUSE_S
            except NotFound as error:
                raise GuestFailed(
                    "the command is gone",
                    details=f"the sandbox does not know {self._exec.id} any more: it was booted anew, or its agent was",
                    resolution="run it again",
                ) from error
            except (GuestFailed, TimedOut, Unavailable) as error:
                log.info("command out of sight", command=self._exec.id, why=str(error))
            if not self.is_over:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, LAST_PAUSE_S)

    async def _awake(self) -> Guest:
        """Wait until the sandbox is awake, because of somebody else, and give its agent.

        Raises:
            GuestFailed: its machine has ended.
        """
        sandbox_id = self._exec.sandbox_id
        resident = self._around.sleep.residents[sandbox_id]
        looks = 0
        while True:
            async with resident.lock:  # whoever changes its heat comes to an end first
                member = self._around.fleet.member(sandbox_id)
            if member is not None and resident.heat is Heat.HOT:
                return member.guest
            if member is None and looks % LOOKS_AT_ROW == 0:
                await self._check_alive()
            looks += 1
            await asyncio.sleep(ASLEEP_PAUSE_S)

    async def _check_alive(self) -> None:
        state = "destroyed"
        with contextlib.suppress(NotFound):
            sandbox = await self._around.store.sandboxes.get(self._exec.sandbox_id)
            if sandbox.state in ALIVE:
                return
            state = sandbox.state
        raise GuestFailed(
            "the sandbox's machine ended",
            details=f"it is {state}, and the command with it",
            resolution="see why with 'hearth inspect', boot it with 'hearth start --force', run the command again",
        )

    async def _attend(self, guest: Guest, request: ExecRequest) -> None:
        """Be its client until it ends or the connection does."""
        async with guest.keep(request) as stream:
            self.log.skip_to(check_position(stream.info, request.after or 0))
            await self._check_input(stream)
            self.stream = stream
            self._reachable.set()
            if not self.started.done():
                self.started.set_result(None)
            helpers = [
                asyncio.create_task(self._acknowledge(stream), name=f"acks of {self._exec.id}"),
                asyncio.create_task(self._give_input(stream), name=f"input of {self._exec.id}"),
            ]
            try:
                if self._kill_wanted:
                    await stream.kill()
                async for output in stream:
                    self.log.append(output.stream, output.data)
                    while self._is_ahead():
                        await self.log.change()
            finally:
                self.stream = None
                self._reachable.clear()
                for helper in helpers:
                    helper.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)
            await self._end(stream)

    async def _end(self, stream: KeptExecution) -> None:
        if self._kill_wanted:
            self.failed(client_left())
        elif stream.timed_out and self._exec.timeout_s is not None:
            self.failed(timed_out(self._exec.timeout_s))
        else:
            self.exited(stream.exit_code)
        # The agent may forget it only when all of it is here to stay.
        await self.log.written()
        await self.save()
        with contextlib.suppress(GuestFailed):
            await stream.release()

    async def _check_input(self, stream: KeptExecution) -> None:
        """See that no input is missing: a command must not go on with half of it as if that were all."""
        info, whole = stream.info, True
        if self._order is None and not self._fed.is_set():
            whole = info.input_ended or self._exec.stdin_open
            self._input_sent = info.input_bytes
            self._fed.set()
        elif self._fed.is_set() and info.input_bytes < self._input_sent:
            whole = self._input_sent == len(self._stdin)
        if self._order is not None and not self._exec.stdin_open and not info.input_ended:
            self._fed.clear()
        if info.running and not whole:
            await stream.kill()
            await stream.release()
            raise Conflict(
                "the command was killed: its input was lost",
                details=f"{info.input_bytes} bytes of it had come when the daemon ended",
                resolution="run it again, with its input in a file of the sandbox",
            )

    async def _give_input(self, stream: KeptExecution) -> None:
        """Feed what was given with the command, from where the agent has it, and its end."""
        if self._fed.is_set():
            return
        # A command that ends without reading all of its input is no error: its exit code tells the story.
        with contextlib.suppress(GuestFailed):
            rest = memoryview(self._stdin)[stream.info.input_bytes :]
            for start in range(0, len(rest), STDIN_CHUNK_BYTES):
                await stream.write_stdin(bytes(rest[start : start + STDIN_CHUNK_BYTES]))
            if not self._exec.stdin_open:
                await stream.close_stdin()
            self._input_sent = len(self._stdin)
            self._fed.set()

    async def _acknowledge(self, stream: KeptExecution) -> None:
        told = 0
        with contextlib.suppress(GuestFailed):
            while True:
                if self.log.stored > told:
                    told = self.log.stored
                    await stream.acknowledge(told)
                else:
                    await self.log.change()

    async def _withdraw(self, guest: Guest) -> None:
        """Make sure that a command whose start was not answered does not run all the same."""
        with contextlib.suppress(HearthError):
            async with guest.keep(ExecRequest(keep=self._exec.id)) as stream:
                await stream.release()

    def _is_ahead(self) -> bool:
        client = self._client
        return self.log.is_full or (client is not None and self.log.end - client.position > AHEAD_BYTES)

    def _linger(self) -> None:
        if self._leaving is None:
            self._leaving = asyncio.get_running_loop().call_later(self._exec.linger_s, self._nobody_came)

    def _nobody_came(self) -> None:
        log.info("command killed: its client did not come back", command=self._exec.id)
        self._kill_wanted = True
        self._client = None
        self.log.wake()
        if self.stream is not None:
            self._killing = asyncio.create_task(self._kill(), name=f"kill {self._exec.id}")

    async def _kill(self) -> None:
        with contextlib.suppress(HearthError):
            await self.signal(KILL)
