"""Use cases of commands: run, start, look, follow, signal, feed, forget; and what an earlier daemon left of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from hearth.config import Settings
from hearth.control.exec_follow import Follower
from hearth.control.exec_index import ExecIndex
from hearth.control.exec_kept import STDIN_CHUNK_BYTES, KeptRun, Surroundings
from hearth.control.exec_log import ExecLog, LogDesk
from hearth.control.exec_run import ExecOrder, PlainRun, Run, client_left
from hearth.control.exec_upkeep import ExecUpkeep
from hearth.control.images import Images
from hearth.control.sandboxes import Sandboxes
from hearth.errors import Conflict, GuestFailed, HearthError, InvalidInput, Unavailable
from hearth.execs import Exec, ExecState, shown_argv, timed_out
from hearth.guest.execution import Execution
from hearth.host.clock import Clock
from hearth.host.files import remove_tree
from hearth.host.identity import new_id
from hearth.model import Sandbox, User
from hearth.store.base import FIRST_PAGE, Page, PageRequest, Store
from hearth.wire.messages import ExecRequest

log = structlog.get_logger(__name__)

MIB = 1024 * 1024
REACHED_S = 30.0
"""How long a command may take to be spoken to again in a sandbox that was just woken."""


@dataclass(frozen=True, kw_only=True)
class Following:
    """A command's output from a position on, and the command itself, as it stands now by ``exec``."""

    follower: Follower
    run: Run | None
    found: Exec

    @property
    def exec(self) -> Exec:
        return self.found if self.run is None else self.run.exec


class Execs:
    """The commands of all sandboxes."""

    def __init__(
        self,
        *,
        store: Store,
        sandboxes: Sandboxes,
        root: Path,
        settings: Settings,
        clock: Clock,
        images: Images,
    ) -> None:
        self._images = images
        self._store = store
        self._sandboxes = sandboxes
        self._clock = clock
        self._index = ExecIndex(store)
        self._runs: dict[str, Run] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._removals: set[asyncio.Task[None]] = set()
        self._desk = LogDesk(root, max_bytes=settings.exec_log_max_mib * MIB, on_written=self._on_written)
        self._around = Surroundings(
            store=store, fleet=sandboxes.fleet, sleep=sandboxes.sleep, index=self._index, clock=clock
        )
        self.upkeep = ExecUpkeep(
            store=store, desk=self._desk, index=self._index, runs=self._runs, settings=settings, clock=clock
        )
        sandboxes.sleep.residents.on_forget = self._sandbox_gone

    @contextlib.asynccontextmanager
    async def run(self, user: User, reference: str, order: ExecOrder) -> AsyncIterator[PlainRun]:
        """Run a command that ends with its client: leaving the context before its end kills its process group.

        Raises:
            InvalidInput: the command is empty.
            NotFound: no such sandbox.
            Conflict: it cannot be woken.
            TimedOut: it ran longer than it may; raised in the context.
            StartFailed: the guest could not start it; raised by the iteration.
            GuestFailed: the guest misbehaved or went away.
        """
        sandbox = await self._sandbox(user, reference, order)
        order = await self._completed(sandbox, order)
        found = self._new(sandbox, order)
        run = PlainRun(found, self._desk.open(sandbox.id, sandbox.owner, found.id), self._index, self._clock)
        self._runs[found.id] = run
        run.save_soon()
        try:
            async with (
                asyncio.timeout(order.timeout_s),
                self._sandboxes.sleep.awake(sandbox) as guest,
                guest.start(order.request) as execution,
                _fed(execution, order),
            ):
                run.stream = execution
                yield run
        except TimeoutError as error:
            late = timed_out(order.timeout_s or 0.0)
            run.failed(late)
            raise late from error
        except HearthError as error:
            run.failed(error)
            raise
        finally:
            run.failed(client_left())  # says nothing of one that is over
            run.stream = None
            self._runs.pop(found.id, None)

    async def start(self, user: User, reference: str, order: ExecOrder) -> KeptRun:
        """Start a command that outlives connections, and give it once the guest has it. Raises as ``run``."""
        sandbox = await self._sandbox(user, reference, order)
        order = await self._completed(sandbox, order)
        found = self._new(sandbox, order)
        order = _named(order, found.id)
        run = KeptRun(found, self._desk.open(sandbox.id, sandbox.owner, found.id), self._around, order=order)
        saving = asyncio.create_task(self._index.save(found.id, run.look), name=f"row of {found.id}")
        self._look_after(run, sandbox)
        try:
            await asyncio.shield(run.started)
            await saving
        except BaseException:
            run.give_up()  # whoever asked does not learn its id
            await asyncio.gather(saving, return_exceptions=True)
            raise
        return run

    async def get(self, user: User, exec_id: str) -> Exec:
        """Find a command of the user's. Raises NotFound."""
        if (run := self._runs.get(exec_id)) is not None and _scope(user) in (None, run.exec.owner):
            return run.exec
        await self._index.flush()
        return await self._store.execs.get(_scope(user), exec_id)

    async def list(
        self, user: User, reference: str, *, states: Collection[ExecState] = (), page: PageRequest = FIRST_PAGE
    ) -> Page[Exec]:
        """Give a page of a sandbox's commands, oldest first. Raises NotFound without the sandbox."""
        sandbox = await self._sandboxes.get(user, reference)
        await self._index.flush()
        found = await self._store.execs.list(_scope(user), sandbox_id=sandbox.id, states=states, page=page)
        items = [self._runs[each.id].exec if each.id in self._runs else each for each in found.items]
        return Page(items=items, next_cursor=found.next_cursor)

    async def follow(self, user: User, exec_id: str, after: int) -> Following:
        """Give a command's output from a position on.

        Raises:
            NotFound: no such command.
            InvalidInput: the position lies beyond the output's end.
        """
        found = await self.get(user, exec_id)
        if (run := self._runs.get(exec_id)) is None:
            await self._desk.flush()  # it may have ended this moment, with its last output on the way to its file
        if after > found.output_bytes:
            raise InvalidInput(
                "invalid after",
                details=f"{exec_id} has written {found.output_bytes} bytes so far, {after} is beyond that",
                resolution="use a cursor that this command's output gave",
                field="after",
            )
        return self._following(found, run, after)

    def following(self, run: Run) -> Following:
        """Give the whole output of a command just started, which may be over by now."""
        return self._following(run.exec, run, 0)

    def _following(self, found: Exec, run: Run | None, after: int) -> Following:
        directory = self._desk.directory(found.sandbox_id)
        live = None if run is None else run.log
        follower = Follower(directory, found.id, after, end=found.output_bytes, live=live)
        return Following(follower=follower, run=run, found=found)

    async def signal(self, user: User, exec_id: str, number: int) -> Exec:
        """Send a signal to a command's process group, waking its sandbox; one that is over is as it is.

        Raises:
            NotFound: no such command.
            Conflict: its sandbox cannot be woken.
            GuestFailed, TimedOut, EngineFailed, SnapshotRefused: it cannot be reached.
        """
        found = await self.get(user, exec_id)
        run = self._runs.get(exec_id)
        if run is None or found.state is not ExecState.RUNNING:
            return found
        async with self._sandboxes.awake(user, found.sandbox_id):
            if isinstance(run, KeptRun):
                await run.reached(REACHED_S)
            if not run.is_over:
                await run.signal(number)
        return run.exec

    async def feed(self, user: User, exec_id: str, data: bytes, *, ends: bool) -> None:
        """Give a command input, and the end of it, waking its sandbox.

        Raises:
            NotFound: no such command.
            Conflict: it is over or takes no input, or its sandbox cannot be woken.
            GuestFailed, TimedOut, EngineFailed, SnapshotRefused: it cannot be reached.
        """
        found = await self.get(user, exec_id)
        run = self._runs.get(exec_id)
        if run is None:
            raise Conflict("the command has ended", details=f"{exec_id} is {found.state}", resolution="start it again")
        async with self._sandboxes.awake(user, found.sandbox_id):
            if isinstance(run, KeptRun):
                await run.reached(REACHED_S)
            await run.feed(data, ends=ends)

    async def forget(self, user: User, exec_id: str) -> None:
        """Forget a command that is over, and its output.

        Raises:
            NotFound: no such command.
            Conflict: it runs.
        """
        found = await self.get(user, exec_id)
        if found.state is ExecState.RUNNING:
            raise Conflict("the command runs", details=exec_id, resolution="kill it first")
        await self._desk.flush()  # one that ended this moment: its log is closed, and its row written for that
        if (run := self._runs.pop(exec_id, None)) is not None:
            run.forget()
        await self._index.flush()
        await self.upkeep.remove([found])

    async def recover(self) -> None:
        """Take up what an earlier daemon left: kept commands are followed on, others ended with it."""
        for found in await self._store.execs.running():
            try:
                written = await self._desk.reopen(found.sandbox_id, found.owner, found.id)
            except OSError as error:
                log.error("a command's log cannot be read", command=found.id, error=str(error))
                written = self._desk.open(found.sandbox_id, found.owner, found.id)
            if found.kept:
                self._look_after(KeptRun(found, written, self._around, order=None), None)
            else:
                left = Run(found, written, self._index, self._clock)
                left.failed(Unavailable("the daemon ended while the command ran", resolution="run it again"))
        await self._index.flush()
        await self.upkeep.sweep()

    async def work(self) -> None:
        """Write and tidy until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name, work in (("logs", self._desk.run()), ("index", self._index.run()), ("upkeep", self.upkeep.run())):
                group.create_task(work, name=f"exec {name}")

    async def close(self) -> None:
        """Leave kept commands to the next daemon, and write what has come. ``work`` must have ended."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), *self._removals, return_exceptions=True)
        for run in self._runs.values():
            run.log.finish()
        await self._desk.close()
        for run in self._runs.values():
            run.save_soon()
        with contextlib.suppress(HearthError):
            await self._index.flush()

    async def _sandbox(self, user: User, reference: str, order: ExecOrder) -> Sandbox:
        if not order.request.argv or not order.request.argv[0]:
            raise InvalidInput(
                "the command is empty",
                details="cmd has no program",
                resolution='give a program and its arguments, such as ["uname", "-a"]',
                field="cmd",
            )
        return await self._sandboxes.creation.settle(await self._sandboxes.get(user, reference))

    async def _completed(self, sandbox: Sandbox, order: ExecOrder) -> ExecOrder:
        """Say where and as whom a command runs that does not say so, where its image does."""
        said, request = await self._images.program_defaults(sandbox.image_id), order.request
        cwd, user = request.cwd or said.working_dir, request.user or said.user
        if (cwd, user) == (request.cwd, request.user):
            return order
        return replace(order, request=_changed(request, cwd=cwd, user=user))

    def _new(self, sandbox: Sandbox, order: ExecOrder) -> Exec:
        request = order.request
        return Exec(
            id=new_id("ex"),
            sandbox_id=sandbox.id,
            owner=sandbox.owner,
            argv=shown_argv(request.argv),
            created_at=self._clock.now(),
            cwd=request.cwd,
            user=request.user,
            kept=order.kept,
            detached=order.detached,
            linger_s=order.linger_s,
            timeout_s=order.timeout_s,
            stdin_open=order.stdin_open,
            output_file=request.output_file,
        )

    def _look_after(self, run: KeptRun, sandbox: Sandbox | None) -> None:
        exec_id = run.exec.id
        self._runs[exec_id] = run
        task = asyncio.create_task(run.look_after(sandbox), name=f"command {exec_id}")
        self._tasks[exec_id] = task
        task.add_done_callback(lambda done: self._looked_after(exec_id, done))

    def _looked_after(self, exec_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(exec_id, None)
        if not task.cancelled():
            self._runs.pop(exec_id, None)
            if (error := task.exception()) is not None:
                log.error("a command was lost sight of", command=exec_id, error=repr(error))

    def _on_written(self, written: ExecLog, grown_bytes: int) -> None:
        self.upkeep.note(written, grown_bytes)

    def _sandbox_gone(self, sandbox_id: str) -> None:
        removal = asyncio.create_task(self._remove_all(sandbox_id), name=f"logs of {sandbox_id}")
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def _remove_all(self, sandbox_id: str) -> None:
        """Remove what a sandbox that is gone leaves: nobody can ask for it any more."""
        gone = [run for run in self._runs.values() if run.exec.sandbox_id == sandbox_id]
        for run in gone:
            run.failed(GuestFailed("the sandbox was destroyed", details=sandbox_id))
            if (task := self._tasks.get(run.exec.id)) is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            self._runs.pop(run.exec.id, None)
        await self._desk.flush()
        directory = self._desk.directory(sandbox_id)
        try:
            await self._desk.on_thread(lambda: remove_tree(directory))
        except (HearthError, OSError) as error:
            log.warning("logs of a destroyed sandbox were not removed", sandbox=sandbox_id, error=str(error))


def _named(order: ExecOrder, exec_id: str) -> ExecOrder:
    """Give the order of a kept command its name for the agent, which counts its time as well."""
    return replace(order, request=_changed(order.request, keep=exec_id, timeout_sec=order.timeout_s))


def _changed(request: ExecRequest, **changes: object) -> ExecRequest:
    fields = {name: getattr(request, name) for name in ("argv", "env", "cwd", "user", "output_file")}
    return ExecRequest(**{**fields, **changes})


@contextlib.asynccontextmanager
async def _fed(execution: Execution, order: ExecOrder) -> AsyncIterator[None]:
    """Feed stdin and its end beside the reading of output, as long as the context lasts."""
    feeding = asyncio.create_task(_feed(execution, order), name="exec stdin")
    try:
        yield
    finally:
        feeding.cancel()
        await asyncio.wait((feeding,))
        if not feeding.cancelled():
            feeding.result()


async def _feed(execution: Execution, order: ExecOrder) -> None:
    # A command that ends without reading all of its input is no error: its exit code tells the story.
    with contextlib.suppress(GuestFailed, OSError):
        for start in range(0, len(order.stdin), STDIN_CHUNK_BYTES):
            await execution.write_stdin(order.stdin[start : start + STDIN_CHUNK_BYTES])
        if not order.stdin_open:
            await execution.close_stdin()


def _scope(user: User) -> str | None:
    return None if user.admin else user.id
