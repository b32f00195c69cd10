"""What copies of one live machine must never share, a row each: of everything a guest may take for its own alone."""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
import pytest_asyncio
from tests.machines.sleepers import VmHouse, opened, start_threads, until

from hearth.config import DataDirectory
from hearth.errors import HearthError
from hearth.guest.client import Guest
from hearth.host import namespaces
from hearth.model import Sandbox
from hearth.network.plan import PLAN
from hearth.wire.messages import ExecRequest

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

CLOCK_ERROR_S = 1.0
"""What may lie between the moment a time is told and that in which a busy host lets the guest hear it."""
TELLINGS = 5
"""Being told once more mends a time that was heard late."""
PORT = 7000
CONNECT_S = 60.0
PROGRAM = f"""
import os, signal, socket, threading

def tell(*words):
    with open("/dev/shm/told", "a") as file:
        print(*words, file=file, flush=True)

def signalled(number, frame):
    with open("/run/hearth/generation") as file:
        tell("signal", file.read().split()[0])

signal.signal(signal.SIGUSR1, signalled)
with open(f"/run/hearth/watchers/{{os.getpid()}}", "w") as file:
    file.write(str(signal.SIGUSR1.value))
listener = socket.create_server(("", {PORT}))
tell("listens")
outside, _ = listener.accept()
inside = socket.create_connection(("127.0.0.1", {PORT}))
accepted, _ = listener.accept()
tell("connected")

def receive():
    try:
        tell("outside", outside.recv(1))
    except OSError as error:
        tell("outside", error.errno)
    inside.sendall(b"x")
    tell("inside", accepted.recv(1).decode())

thread = threading.Thread(target=receive)
thread.start()
while True:
    signal.pause()
"""
KEYGEN = "#!/bin/sh\\nod -An -N16 -tx1 /dev/urandom > /etc/ssh/ssh_host_ed25519_key\\n"
PREPARE = f"""
mkdir -p /etc/ssh
printf '{KEYGEN}' > /usr/local/bin/ssh-keygen
chmod 755 /usr/local/bin/ssh-keygen
ssh-keygen -A
"""
CLOCK = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class Family:
    """A machine and two copies of it; ``asked_s`` is our monotonic time before it told ``uptime_s``."""

    house: VmHouse
    source: Sandbox
    copies: tuple[Sandbox, Sandbox]
    uptime_s: float
    asked_s: float

    @property
    def all(self) -> tuple[Sandbox, ...]:
        return (self.source, *self.copies)

    async def each(self, script: str) -> list[str]:
        """Run a script in all three."""
        return [await self.house.shell(sandbox, script) for sandbox in self.all]

    async def require_distinct(self, script: str) -> list[str]:
        told = await self.each(script)
        assert len(set(told)) == len(told), told
        assert all(told)
        return told


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def family(slept_in: DataDirectory) -> AsyncIterator[Family]:
    await start_threads()
    async with opened(slept_in) as house:
        try:
            source = await house.create("source")
            await house.shell(source, PREPARE)
            await house.shell(source, f"cat > /dev/shm/program <<'END'\n{PROGRAM}\nEND")
            await house.shell(source, "setsid python3 /dev/shm/program </dev/null >/dev/null 2>&1 &")
            await _told(house, source, "listens")
            namespace = house.sandboxes.workshop.network.namespace(source.id)
            peer = await namespaces.connect_in(namespace, (str(PLAN.guest.ip), PORT), CONNECT_S)
            await _told(house, source, "connected")
            asked_s = time.monotonic()
            uptime_s = float((await house.shell(source, "cat /proc/uptime")).split()[0])
            one, other = await house.sandboxes.fork(house.admin, source.id, name="copy", count=2)
            yield Family(house=house, source=source, copies=(one, other), uptime_s=uptime_s, asked_s=asked_s)
            peer.close()
        finally:
            await house.destroy_all()


async def _told(house: VmHouse, sandbox: Sandbox, word: str) -> None:
    async def is_told() -> bool:
        return word in (await house.shell(sandbox, "cat /dev/shm/told 2>/dev/null || true")).split()

    await until(is_told, f"{sandbox.spec.name} tells {word!r}")


async def random_numbers(family: Family) -> None:
    await family.require_distinct("od -An -N32 -tx1 /dev/urandom | tr -d ' \\n'")
    await family.require_distinct("python3 -c 'import os; print(os.getrandom(32).hex())'")


async def wall_clock(family: Family) -> None:
    for sandbox in family.all:
        errors_s = [abs((await _clocks(family.house, sandbox))[0])]
        while min(errors_s) >= CLOCK_ERROR_S and len(errors_s) < TELLINGS:
            async with family.house.sandboxes.awake(family.house.admin, sandbox.id) as guest:
                guest.woken()
            errors_s.append(abs((await _clocks(family.house, sandbox))[0]))
        assert min(errors_s) < CLOCK_ERROR_S, (sandbox.spec.name, errors_s)


async def monotonic_clock(family: Family) -> None:
    for copy in family.copies:
        _, monotonic_s = await _clocks(family.house, copy)
        assert family.uptime_s < monotonic_s < family.uptime_s + (time.monotonic() - family.asked_s) + 1


async def _clocks(house: VmHouse, sandbox: Sandbox) -> tuple[float, float]:
    """Ask a program in the guest for the time; the quickest answer counts. Gives offset and monotonic time, in s."""
    answers = []
    request = ExecRequest(argv=["python3", "-c", CLOCK])
    async with house.sandboxes.execute(house.admin, sandbox.id, request) as program:
        for _ in range(SAMPLES):
            asked_s = time.time()
            await program.write_stdin(b"\n")
            told_s, monotonic_s = map(float, (await anext(program)).data.split())
            took_s = time.time() - asked_s
            answers.append((took_s, told_s - asked_s - took_s / 2, monotonic_s))
    _, offset_s, monotonic_s = min(answers)
    return offset_s, monotonic_s


async def connections_of_the_old_life(family: Family) -> None:
    for copy in family.copies:
        await _told(family.house, copy, "inside")
    source, *copies = await family.each("grep -e outside -e inside /dev/shm/told || true")
    assert source == ""
    assert copies == [f"outside {errno.ECONNABORTED}\ninside x"] * 2, "what leads to others ends, what is inside stays"


async def addresses(family: Family) -> None:
    """Each guest has the constant address in a network of its own; where it is connected, others know it by another."""
    told = await family.each("ip -4 -o address show dev eth0 2>/dev/null || hostname -I")
    assert [str(PLAN.guest.ip) in line for line in told] == [True] * len(family.all)
    network = family.house.sandboxes.workshop.network
    spaces = {network.namespace(sandbox.id) for sandbox in family.all}
    assert len(spaces) == len(family.all)
    assert spaces <= namespaces.list_names("hearth-")


async def machine_id(family: Family) -> None:
    told = await family.require_distinct("cat /etc/machine-id")
    assert {len(line) for line in told} == {32}


async def host_name(family: Family) -> None:
    assert await family.each("hostname; cat /etc/hostname") == [
        f"{name}\n{name}" for name in ("source", "copy-1", "copy-2")
    ]


async def ssh_host_keys(family: Family) -> None:
    await family.require_distinct("cat /etc/ssh/ssh_host_ed25519_key")


async def token(family: Family) -> None:
    workshop = family.house.sandboxes.workshop
    for sandbox in family.all:
        dialer = family.house.member(sandbox).machine.dialer
        for other in family.all:
            guest = Guest(dialer, workshop.agent_token(other.id))
            if other is sandbox:
                await guest.activity()
            else:
                with pytest.raises(HearthError, match="auth"):
                    await guest.activity()


async def generation_and_signal(family: Family) -> None:
    generations = await family.require_distinct("cut -d' ' -f1 /run/hearth/generation")
    for copy in family.copies:
        await _told(family.house, copy, "signal")
    told = await family.each("grep signal /dev/shm/told || true")
    assert told == ["", *(f"signal {generation}" for generation in generations[1:])]


Row = Callable[[Family], Awaitable[None]]
ROWS: list[Row] = [
    random_numbers,
    wall_clock,
    monotonic_clock,
    connections_of_the_old_life,
    addresses,
    machine_id,
    host_name,
    ssh_host_keys,
    token,
    generation_and_signal,
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__.replace("_", " "))
async def test_copies_of_a_live_machine_have_their_own(family: Family, row: Row) -> None:
    await row(family)
