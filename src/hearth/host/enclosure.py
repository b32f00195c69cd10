"""Starting a program enclosed, without root: it sees no network, no files but the system's and no process of this host.

A user namespace gives the rights for that to whoever has none; ``enclosed`` is the program that does it. What comes to
the enclosed program from outside are the descriptors it is handed, and connections to its loopback by the gate.
"""

from __future__ import annotations

import asyncio
import functools
import marshal
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hearth.errors import HostUnfit
from hearth.host.process import SMALL_ENVIRONMENT
from hearth.host.spawn import Child, identify, spawn

PROGRAM = Path(__file__).with_name("enclosed.py")
INTERPRETERS = ("/usr/bin/python3", sys.executable)
"""The system's is open to every user; ours may lie in somebody's home."""
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix", "/gnu")
LINKER_CACHE = ("/etc/ld.so.cache", "/etc/alternatives")
DEVICES = ("/dev/null", "/dev/urandom")
STATUS, ORDERS, COMPILED = 13, 14, 15
"""Descriptors of the enclosing program, closed before the enclosed one begins."""
LOADER = f"import marshal;exec(marshal.load(open({COMPILED},'rb')))"
COMPILER = """
import marshal, sys
sys.stdout.buffer.write(marshal.dumps(compile(sys.stdin.buffer.read(), "enclosed.py", "exec")))
"""
COMPILE_TIMEOUT_S = 60.0
MARSHAL_VERSION = 2
"""Read by every Python there is: the program's may be another than ours."""
START_TIMEOUT_S = 30.0
GATE_TIMEOUT_S = 2.0
GATE_BACKLOG = 128
HOW_TO_PERMIT = (
    "let this user make user namespaces: 'sysctl user.max_user_namespaces', on Ubuntu "
    "'sysctl kernel.apparmor_restrict_unprivileged_userns=0', in a container a seccomp profile that permits unshare; "
    "or run the daemon as root with its rights; root without CAP_SETFCAP has fewer than an ordinary user here"
)


@dataclass(frozen=True, kw_only=True)
class Switch:
    """A program at the other end of the wire of an enclosed one, enclosed like it.

    Args:
        argv: program, looked up on PATH, and its arguments.
        number: of the descriptor, in both programs, with their end of the wire.
        greeting: bytes that the switch finds there, as if the enclosed program had sent them.
    """

    argv: Sequence[str]
    number: int
    greeting: bytes


@dataclass(frozen=True, kw_only=True)
class Enclosed:
    """What is started and what it gets.

    Args:
        argv: program, looked up on PATH, and its arguments.
        devices: device files it may open beside /dev/null and /dev/urandom.
        limits: names of ``resource`` (``RLIMIT_DATA``) and how much of it.
        gate: the number, among its descriptors, of a listening Unix socket: whoever connects there is sent a socket of
            the enclosure's network, see ``socket_inside``. The program itself does not get it.
        switch: another program beside it, in the same network.
        dies_with_us: whether it is killed when the thread ends that started it.
    """

    argv: Sequence[str]
    devices: Sequence[str] = ()
    limits: Mapping[str, int]
    gate: int
    switch: Switch | None = None
    dies_with_us: bool = False


def start(enclosed: Enclosed, *, descriptors: Mapping[int, int], output: int, prefix: Sequence[str] = ()) -> Child:
    """Start a program enclosed and return when it runs; blocking for about 20 ms.

    Args:
        descriptors: the program's number (3 or more, but not 13 to 15) → ours, which stays open here.
        output: descriptor of a log file.
        prefix: words before the command that does it, as ``spawn.setpriv_prefix`` gives them.

    Raises:
        HostUnfit: the kernel permits no enclosure, or the program cannot be started.
    """
    order = marshal.dumps(_orders(enclosed), MARSHAL_VERSION)
    interpreter = _interpreter()
    program = _compiled(interpreter, _version(interpreter))
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with (
        os.fdopen(reader, "rb", buffering=0) as status,
        _in_memory("hearth-orders", order) as orders,
        _in_memory("hearth-enclosed", program) as compiled,
    ):
        own = {STATUS: writer, ORDERS: orders.fileno(), COMPILED: compiled.fileno()}
        words = [interpreter, "-IS", "-c", LOADER, *map(str, (STATUS, enclosed.gate, ORDERS))]
        try:
            encloser = spawn([*prefix, *words], descriptors={**descriptors, **own}, output=output)
        finally:
            os.close(writer)
        try:
            said = _read_all(status)
        finally:
            bury(encloser)
    return _child(said)


def bury(process: Child) -> None:
    """End a process that nobody waits for, and collect it."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED)
    process.close()


def open_gate(path: Path) -> socket.socket:
    """Listen at ``path`` for those who want sockets of an enclosure; only its owner may connect."""
    gate = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        gate.bind(str(path))
        path.chmod(0o600)
        gate.listen(GATE_BACKLOG)
    except BaseException:
        gate.close()
        raise
    return gate


async def socket_inside(gate: Path) -> socket.socket:
    """Ask at a gate for a TCP socket of its enclosure's network, not connected, non-blocking; the caller closes it.

    Raises:
        OSError: the enclosed program has ended; TimeoutError when nothing came.
    """
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.setblocking(False)
        async with asyncio.timeout(GATE_TIMEOUT_S):
            await loop.sock_connect(asking, str(gate))
            arrived = asyncio.Event()
            loop.add_reader(asking, arrived.set)
            try:
                await arrived.wait()
            finally:
                loop.remove_reader(asking)
        _, descriptors, _, _ = socket.recv_fds(asking, 1, 1, socket.MSG_CMSG_CLOEXEC)
    if not descriptors:
        raise ConnectionRefusedError(f"nothing lives behind {gate}")
    made = socket.socket(fileno=descriptors[0])
    made.setblocking(False)
    return made


def obstacle() -> str | None:
    """Try an enclosure and tell, in the system's words, what hinders one; None when it works. Blocking, 50 ms."""
    with tempfile.TemporaryDirectory() as directory, open(os.devnull, "wb") as output:
        gate = open_gate(Path(directory) / "gate")
        with gate:
            trial = Enclosed(argv=["true"], limits={}, gate=12)
            try:
                bury(start(trial, descriptors={12: gate.fileno()}, output=output.fileno()))
            except (HostUnfit, OSError) as error:
                return error.details if isinstance(error, HostUnfit) else str(error)
    return None


def _orders(enclosed: Enclosed) -> dict[str, object]:
    switch = enclosed.switch
    return {
        "argv": _found(enclosed.argv),
        "switch": None
        if switch is None
        else {"argv": _found(switch.argv), "number": switch.number, "greeting": switch.greeting.hex()},
        "environment": SMALL_ENVIRONMENT,
        "read_only": [*SYSTEM, *LINKER_CACHE],
        "devices": [*DEVICES, *enclosed.devices],
        "limits": dict(enclosed.limits),
        "dies_with_us": enclosed.dies_with_us,
    }


def _found(argv: Sequence[str]) -> list[str]:
    program = shutil.which(argv[0], path=SMALL_ENVIRONMENT["PATH"])
    if program is None:
        raise HostUnfit(
            f"{argv[0]} cannot be started",
            details="it is not installed",
            resolution="run 'make setup' or install its package",
        )
    return [program, *argv[1:]]


def _interpreter() -> str:
    return next(path for path in INTERPRETERS if os.access(path, os.X_OK))


def _version(interpreter: str) -> tuple[int, int, int]:
    """Tell an interpreter from the one that an upgrade puts in its place, which may not read what it compiled."""
    found = Path(interpreter).stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


@functools.lru_cache(maxsize=2)
def _compiled(interpreter: str, version: tuple[int, int, int]) -> bytes:
    """Give the program as this interpreter would compile it, which takes as long as all else that it does."""
    del version  # is there to be remembered
    try:
        done = subprocess.run(
            [interpreter, "-IS", "-c", COMPILER],
            input=PROGRAM.read_bytes(),
            capture_output=True,
            timeout=COMPILE_TIMEOUT_S,
            env=SMALL_ENVIRONMENT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _unfit(f"{interpreter} took longer than {COMPILE_TIMEOUT_S:g} s to compile") from error
    if done.returncode != 0:
        raise _unfit(f"{interpreter} cannot compile: {done.stderr.decode('utf-8', 'replace')[-300:]}")
    return done.stdout


def _in_memory(name: str, data: bytes) -> IO[bytes]:
    """Give a file that has no name anywhere, to be read from its beginning."""
    file = os.fdopen(os.memfd_create(name, os.MFD_CLOEXEC), "w+b", buffering=0)
    try:
        file.write(data)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _read_all(status: IO[bytes]) -> bytes:
    """Read until all who could tell something have closed it: the program has begun by then, or never will."""
    poll, said, deadline_s = select.poll(), b"", time.monotonic() + START_TIMEOUT_S
    poll.register(status, select.POLLIN)
    while poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000):
        data = status.read(4096)
        if not data:
            return said
        said += data
    return said + b"it took too long\n"


def _child(said: bytes) -> Child:
    lines = said.decode("utf-8", "replace").splitlines()
    numbers = [int(line) for line in lines if line.isdigit()]
    complaint = "; ".join(line for line in lines if not line.isdigit())
    if not numbers:
        raise _unfit(complaint or "it ended without a word")
    pid = numbers[0]
    pidfd, identity = os.pidfd_open(pid), identify(pid)
    if identity is None:
        raise AssertionError("a child stays in /proc until it is collected")
    child = Child(identity, pidfd)
    if complaint:
        bury(child)
        raise _unfit(complaint)
    return child


def _unfit(why: str) -> HostUnfit:
    return HostUnfit("this host does not let programs be enclosed", details=why, resolution=HOW_TO_PERMIT)
