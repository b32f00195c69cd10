"""A daemon in this process with real machines that sleep, and short words for what tests of them do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

from tests.control.conftest import House
from tests.machines.test_first_light import vmms_of

from hearth.config import DataDirectory, Settings
from hearth.control.daemon import open_daemon
from hearth.control.fleet import Member
from hearth.control.residents import Resident
from hearth.model import Heat, Sandbox, SandboxSpec
from hearth.wire.messages import ExecRequest

QUIET = Settings(idle_pause_s=3600, idle_stop_s=7200, pool_ready=0, pool_waiting=0, min_free_mib=0, network_slots=0)
"""Nothing happens by itself."""
WAIT_S = 120.0
SHELL_S = 120.0
"""For a script on a busy host, a wake before it."""
THREADS = min(32, (os.cpu_count() or 1) + 4)
"""Of asyncio's own executor."""

MARK_RAM = "echo {0} > /dev/shm/mark"
MARK_DISK = "echo {0} > /var/tmp/mark && sync"


class VmHouse(House):
    """A daemon whose machines are real."""

    def __init__(self, house: House) -> None:
        super().__init__(house.data, house.daemon, house.admin)

    def resident(self, sandbox: Sandbox) -> Resident:
        return self.sandboxes.sleep.residents[sandbox.id]

    def heat(self, sandbox: Sandbox) -> Heat:
        return self.resident(sandbox).heat

    def member(self, sandbox: Sandbox) -> Member:
        member = self.sandboxes.fleet.member(sandbox.id)
        assert member is not None
        return member

    async def is_frozen(self, sandbox: Sandbox) -> bool:
        """Ask a hot guest whether its file systems stand still."""
        return (await self.member(sandbox).guest.activity()).frozen

    def memory(self, sandbox: Sandbox) -> Path:
        return self.sandboxes.workshop.memory(sandbox.id)

    async def look(self, sandbox: Sandbox) -> Sandbox:
        """Give its row as it is now."""
        return await self.sandboxes.get(self.admin, sandbox.id)

    async def shell(self, sandbox: Sandbox, script: str) -> str:
        """Run a script as root; it must end well."""
        out = bytearray()
        request = ExecRequest(argv=["/bin/sh", "-c", script], user="root")
        async with asyncio.timeout(SHELL_S), self.sandboxes.execute(self.admin, sandbox.id, request) as running:
            async for chunk in running:
                out += chunk.data
            assert running.exit_code == 0, f"{script!r} ended with {running.exit_code}: {out!r}"
        return out.decode().strip()

    async def mark(self, sandbox: Sandbox, word: str) -> None:
        """Leave a word in the guest's memory and one on its disk."""
        await self.shell(sandbox, f"{MARK_RAM.format(word)}; {MARK_DISK.format(word)}")

    async def marks(self, sandbox: Sandbox) -> tuple[str, str]:
        """Give the words in memory and on disk, "-" for none."""
        script = "for f in /dev/shm/mark /var/tmp/mark; do cat $f 2>/dev/null || echo -; done"
        memory, disk = (await self.shell(sandbox, script)).split()
        return memory, disk

    async def pause(self, sandbox: Sandbox) -> None:
        """Stop the CPUs, even while the daemon's own loop just looks at it, which is no use of anybody's."""
        assert await self.sandboxes.sleep.pause(sandbox.id, idle_only=False)

    async def stop(self, sandbox: Sandbox) -> None:
        """Take it to disk."""
        assert await self.sandboxes.sleep.stop(sandbox.id) is not None

    async def create(self, name: str, **fields: object) -> Sandbox:
        spec = SandboxSpec(name=name, **fields)  # type: ignore[arg-type]
        return (await self.sandboxes.create(self.admin, spec)).sandbox

    @contextlib.asynccontextmanager
    async def sandbox(self, name: str = "dev", **fields: object) -> AsyncIterator[Sandbox]:
        """A sandbox for one test, destroyed at its end, whatever has become of it."""
        made = await self.create(name, **fields)
        try:
            yield made
        finally:
            await self.sandboxes.destroy(self.admin, made.id)
            assert traces_of(self.data, made.id) == []


@contextlib.asynccontextmanager
async def opened(data: DataDirectory, settings: Settings = QUIET) -> AsyncIterator[VmHouse]:
    """Open a daemon; its sandboxes live on when it closes."""
    async with open_daemon(data, settings) as daemon:
        admin = await daemon.users.authenticate(data.admin_key.read_text().strip())
        yield VmHouse(House(data, daemon, admin))


async def start_threads() -> None:
    """Have the executor of this loop start all its threads now, so that no test is said to have left one."""
    barrier = threading.Barrier(THREADS)
    await asyncio.gather(*(asyncio.to_thread(barrier.wait) for _ in range(THREADS)))


def traces_of(data: DataDirectory, sandbox_id: str) -> list[str]:
    """Everything on this host that bears a sandbox's id."""
    traces = [f"process {pid}" for pid in vmms_of(sandbox_id)]
    for place in (data.machines, data.root / "snapshots", Path("/run/netns"), Path("/sys/fs/cgroup")):
        traces += [str(Path(base) / name) for base, names, _ in os.walk(place) for name in names if sandbox_id in name]
    return traces


async def until(condition: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    """Wait until something is so that nobody tells of."""
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                found = condition()
                if found if isinstance(found, bool) else await found:
                    return
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {WAIT_S:g} s: {what}") from None
