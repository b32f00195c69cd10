"""The agent of one machine, as the rest of the host uses it. Everything a guest can do is reached from here."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hearth.errors import GuestFailed, HearthError, InvalidInput, TimedOut
from hearth.guest import standstill, volumes
from hearth.guest.connector import SYSTEM_CLOCK, Connector
from hearth.guest.dial import Dialer
from hearth.guest.execution import Collector, ExecResult, Execution, read_exit
from hearth.guest.faults import Deadline, decode_reply, decode_reply_list, encode_request
from hearth.guest.files import Files
from hearth.guest.forward import ForwardStream, forward
from hearth.guest.kept import KeptExecution
from hearth.guest.patience import DEFAULT_PATIENCE, Patience
from hearth.guest.sessions import Sessions
from hearth.guest.status import expect_ok
from hearth.host.clock import Clock
from hearth.wire import frames
from hearth.wire.frames import FrameType
from hearth.wire.messages import (
    ActivityInfo,
    ExecRequest,
    FrozenMount,
    LastWords,
    MachineConfig,
    PortInfo,
    ProcessStarted,
    VolumeMount,
)

FIRST_PROBE_PAUSE_S = 0.005
LAST_PROBE_PAUSE_S = 0.1
FIRST_PROBE_TIMEOUT_S = 0.1
LAST_PROBE_TIMEOUT_S = 2.0
"""A booting guest may lose the first packet of a connection, and TCP repeats it only after a second: give up early at
first, and later allow for a guest that is merely slow."""

_INLINE_STDIN = 65_536


class Guest:
    """The host's end of the link to one agent.

    Args:
        dialer: opens connections to the agent.
        token: the agent's token, None for one that has not been configured.
        connection_limit: operations at a time; more wait for a while.
        patience: how long to wait for what.
        clock: the time a machine that slept is told.
    """

    def __init__(
        self,
        dialer: Dialer,
        token: str | None,
        *,
        connection_limit: int = 40,
        patience: Patience = DEFAULT_PATIENCE,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._patience = patience
        self._connector = Connector(dialer, token, connection_limit=connection_limit, patience=patience, clock=clock)
        self.files = Files(self._connector)
        self.sessions = Sessions(self._connector)

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until the agent answers a question; that something accepts connections proves nothing.

        Raises:
            TimedOut: it stayed unreachable or silent; ``details`` tells what happened last.
            GuestFailed: it answered, but wrongly, to the end.
        """
        last: HearthError | None = None
        pause_s, probe_timeout_s = FIRST_PROBE_PAUSE_S, FIRST_PROBE_TIMEOUT_S
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        await self._ask_activity(probe_timeout_s, once=True)
                        return
                    except HearthError as error:
                        last = error
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 1.5, LAST_PROBE_PAUSE_S)
                    probe_timeout_s = min(probe_timeout_s * 1.5, LAST_PROBE_TIMEOUT_S)
        except TimeoutError as error:
            details = str(last) if last is not None else "no probe came to an end"
            if isinstance(last, GuestFailed) and not isinstance(last.__cause__, OSError):
                raise GuestFailed(f"the guest did not become ready in {timeout_s:g} s", details=details) from last
            raise TimedOut(f"the guest did not become ready in {timeout_s:g} s", details=details) from error

    async def configure(self, config: MachineConfig, timeout_s: float) -> None:
        """Give the machine its identity; its token is used from then on.

        Raises:
            TimedOut, GuestFailed: the guest did not answer, or wrongly.
            HearthError: it refused, see ``hearth.guest.faults``.
        """
        async with Deadline(timeout_s, "configuring the guest"):
            request = encode_request(FrameType.CONFIGURE, config)
            with await self._connector.open(request, urgent=True) as connection:
                await expect_ok(connection, FrameType.CONFIGURED)
        self._connector.use_token(config.token or None)
        # Reading the configuration took an emulated guest a while, by which its clock is behind now.
        self._connector.timekeeper.woken()

    async def freeze(self, *, timeout_s: float = 10.0, thaw_after_s: float = 30.0) -> list[FrozenMount]:
        """Freeze the guest's writable disks, for the moment in which they are copied, and tell how full each is.

        Args:
            timeout_s: by then it is done, or undone.
            thaw_after_s: how long the running guest waits for ``thaw`` or ``configure`` until it thaws by itself.

        Raises:
            Conflict, HearthError: a disk cannot be frozen; then none is.
            TimedOut, GuestFailed: the guest did not answer, or wrongly.
        """
        return await standstill.freeze(self._connector, timeout_s=timeout_s, thaw_after_s=thaw_after_s)

    async def thaw(self, *, timeout_s: float | None = None) -> None:
        """Thaw the guest's disks; any number of times.

        Raises:
            TimedOut, GuestFailed: the guest did not answer, or wrongly.
        """
        await standstill.thaw(self._connector, timeout_s=timeout_s or self._patience.reply_s)

    def woken(self) -> None:
        """Note that the machine stood still until now: what is asked of it next tells it the time, at no extra cost."""
        self._connector.timekeeper.woken()

    async def last_words(self) -> LastWords:
        """Ask what the guest's kernel has killed for want of memory.

        Raises:
            TimedOut, GuestFailed: the guest did not answer, or wrongly.
        """
        return await standstill.last_words(self._connector)

    async def settle_volumes(self, mounts: Sequence[VolumeMount]) -> None:
        """Have the guest mount these volumes and let go of all others, which may be detached then.

        Raises:
            Conflict: one that is to go is in use in the guest, or something else is mounted where one is to come.
            TimedOut, GuestFailed: the guest did not answer, or wrongly.
        """
        await volumes.settle(self._connector, mounts)

    def disconnect(self) -> None:
        """End every operation under way, at once: before the machine is frozen, moved or killed.

        Commands are killed with their connections, sessions stay. New operations connect anew.
        """
        self._connector.close_all()

    def start(self, request: ExecRequest) -> Execution:
        """Give a command to run over pipes; entering the context sends the request.

        Raises:
            InvalidInput: the request is for a session or detached, which have functions of their own.
        """
        _check_plain(request)
        return Execution(self._connector, encode_request(FrameType.EXEC_REQ, request))

    def keep(self, request: ExecRequest) -> KeptExecution:
        """Give a command that outlives its connection, named by ``keep``: to be started, or the one of that name.

        Entering the context raises StartFailed, NotFound (there is none, and no arguments to start one) or Unavailable
        (too many are kept).

        Raises:
            InvalidInput: the request is for a session, or names nothing.
        """
        if request.keep is None or request.tty or request.session or request.session_id is not None:
            raise InvalidInput("not a kept command", details="keep names it; sessions are started differently")
        return KeptExecution(self._connector, encode_request(FrameType.EXEC_REQ, request))

    async def run(
        self, request: ExecRequest, *, timeout_s: float, max_output_bytes: int, stdin: bytes = b""
    ) -> ExecResult:
        """Run a command to its end.

        Args:
            request: the command.
            timeout_s: seconds until its process group is killed.
            max_output_bytes: of stdout and stderr together; what comes beyond is dropped and the result says so.
            stdin: its whole input.

        Raises:
            StartFailed: it could not be started.
            TimedOut: it was killed for taking too long.
            GuestFailed: the guest broke off or broke the protocol.
        """
        _check_plain(request)
        first = encode_request(FrameType.EXEC_REQ, request)
        feeds = len(stdin) > _INLINE_STDIN
        if not feeds:
            first += (frames.encode(FrameType.STDIN, stdin) if stdin else b"") + frames.encode(FrameType.STDIN_EOF)
        collector = Collector(max_output_bytes)
        async with Deadline(timeout_s, "the command"), Execution(self._connector, first) as execution:
            feeder = asyncio.create_task(_feed(execution, stdin), name="guest stdin") if feeds else None
            try:
                async for output in execution:
                    collector.add(output)
            finally:
                if feeder is not None:
                    feeder.cancel()
                    await asyncio.gather(feeder, return_exceptions=True)
            return collector.result(execution.exit_code)

    async def start_detached(self, request: ExecRequest) -> ProcessStarted:
        """Start a command that nobody waits for; its output goes to ``output_file`` in the guest.

        Raises:
            StartFailed: it could not be started.
            TimedOut, GuestFailed: the guest did not answer, or wrongly.
        """
        if not request.detach:
            raise InvalidInput("not a detached command", field="detach")
        async with Deadline(self._patience.reply_s, "starting the command"):
            with await self._connector.open(encode_request(FrameType.EXEC_REQ, request)) as connection:
                frame = await connection.expect(FrameType.STDOUT)
                started = decode_reply(ProcessStarted, frame.payload)
                read_exit((await connection.expect(FrameType.EXIT)).payload)
        return started

    async def activity(self, *, timeout_s: float | None = None) -> ActivityInfo:
        """Ask when the guest was last busy; asking is not use. ``timeout_s`` bounds the whole exchange.

        Raises:
            TimedOut, GuestFailed: the guest did not answer, or wrongly.
        """
        return await self._ask_activity(timeout_s or self._patience.reply_s, once=False)

    async def ports(self) -> list[PortInfo]:
        """List the listening TCP sockets of the guest.

        Raises:
            TimedOut, GuestFailed: the guest did not answer, or wrongly.
        """
        async with Deadline(self._patience.reply_s, "listing ports"):
            with await self._connector.open(encode_request(FrameType.PORTS_REQ), urgent=True) as connection:
                frame = await connection.expect(FrameType.PORTS_RESP)
        return decode_reply_list(PortInfo, frame.payload)

    async def power_off(self) -> None:
        """Ask the guest to write its disks and switch itself off; the machine ends some time after the reply.

        Raises:
            TimedOut, GuestFailed: the guest did not answer, or wrongly.
        """
        async with Deadline(self._patience.reply_s, "switching the guest off"):
            with await self._connector.open(encode_request(FrameType.POWER_OFF_REQ), urgent=True) as connection:
                await expect_ok(connection, FrameType.POWER_OFF_RESP)

    async def forward(self, port: int, *, timeout_s: float | None = None) -> ForwardStream:
        """Connect to a TCP port of the guest's loopback.

        Raises:
            Unavailable: nothing listens there.
            TimedOut, GuestFailed: the guest did not answer, or wrongly.
        """
        return await forward(self._connector, port, timeout_s=timeout_s or self._patience.reply_s)

    async def _ask_activity(self, timeout_s: float, *, once: bool) -> ActivityInfo:
        request = encode_request(FrameType.ACTIVITY_REQ)
        async with Deadline(timeout_s, "asking for activity"):
            with await self._connector.open(request, urgent=True, once=once) as connection:
                frame = await connection.expect(FrameType.ACTIVITY_RESP)
        return decode_reply(ActivityInfo, frame.payload)


def _check_plain(request: ExecRequest) -> None:
    if request.tty or request.session or request.detach or (request.session_id, request.keep) != (None, None):
        raise InvalidInput("not a plain command", details="sessions and detached commands are started differently")


async def _feed(execution: Execution, stdin: bytes) -> None:
    await execution.write_stdin(stdin)
    await execution.close_stdin()
