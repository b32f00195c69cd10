"""A QEMU without a machine that works on disk files: without rights, without a network, with these files alone.

What lies in the files may have been written by a VMM that was broken out of, and QEMU's own tools take no descriptors:
they would have to open the files themselves, and so to be root. What is started here is a user of its own for once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hearth.engine.qemu.handover import log_file, read_log
from hearth.engine.qemu.qmp import Qmp, QmpClosed
from hearth.engine.qemu.vmm_user import take_user
from hearth.errors import EngineFailed, NoSpace, TimedOut
from hearth.host import enclosure
from hearth.host.files import remove_tree
from hearth.host.rights import may_give_users
from hearth.host.spawn import Child, setpriv_prefix, spawn
from hearth.host.threads import on_own_thread

BINARY = "qemu-system-x86_64"
QMP, GATE, FIRST_FILE = 3, 4, 16
"""Its numbers of the descriptors it is given; 13 to 15 are those of ``hearth.host.enclosure``."""
CPU_S = 900
ADDRESS_SPACE_BYTES = 16 << 30
"""Each of its threads reserves some 70 MiB of it and uses next to none."""
OPEN_FILES_MAX = 256
PROCESSES_MAX = 256
"""Its own threads; nobody else is its user. On a slow disk it has 64 for that alone, and ends where it gets no more."""
TIMEOUT_S = 900.0
END_TIMEOUT_S = 60.0
JOB = "job"
FULL = "No space left on device"


@dataclass(frozen=True, kw_only=True)
class DiskFile:
    """A file and what it is; a qcow2 file lies over the one before it."""

    path: Path
    format: str
    is_writable: bool = False


class BlockTool:
    """The running tool. Its files are nodes ``file0``, ``file1`` and so on."""

    def __init__(self, monitor: Qmp, pid: int) -> None:
        self._monitor = monitor
        self.pid = pid

    async def job(self, command: str, arguments: Mapping[str, object]) -> None:
        """Run a block job to its end.

        Raises:
            EngineFailed: it failed, or the tool ended.
            NoSpace: the file system is full.
        """
        with self._monitor.watch("JOB_STATUS_CHANGE") as events:
            await self._monitor.execute(command, {**arguments, "job-id": JOB, "auto-dismiss": False})
            while (status := (await events.next())["status"]) != "concluded":
                if status == "ready":
                    # A mirror has all of it and would go on for ever; ended here it is whole (qapi/block-core.json).
                    await self._monitor.execute("block-job-cancel", {"device": JOB})
        for job in await self._monitor.execute("query-jobs"):
            if error := job.get("error"):
                raise _failure(str(error))


def node(number: int) -> str:
    """Name the node of the file of this number."""
    return f"file{number}"


def command(files: Sequence[DiskFile]) -> list[str]:
    """Give program and arguments; the files come as descriptors from ``FIRST_FILE`` on."""
    words = [
        BINARY,
        *("-nodefaults", "-no-user-config", "-display", "none", "-M", "none", "-accel", "tcg,tb-size=1"),
        *("-chardev", f"socket,id=qmp,fd={QMP}", "-mon", "chardev=qmp,mode=control"),
    ]
    for number, file in enumerate(files):
        access: dict[str, object] = {"discard": "unmap"} if file.is_writable else {"read-only": True}
        below: dict[str, object] = {"backing": node(number - 1)} if file.format == "qcow2" else {}
        # What is all zeros becomes a hole; of a layer it hides what lies below.
        zeros: dict[str, object] = {"detect-zeroes": "unmap"} if file.is_writable and not below else {}
        inner = {"driver": "file", "filename": f"/dev/fdset/{number + 1}", **access}
        outer = {"driver": file.format, "node-name": node(number), **access, **zeros, "file": inner, **below}
        words += ["-add-fd", f"fd={FIRST_FILE + number},set={number + 1}"]
        words += ["-blockdev", json.dumps(outer, separators=(",", ":"))]
    return [*words, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]


@contextlib.asynccontextmanager
async def block_tool(files: Sequence[DiskFile], *, file_max_bytes: int) -> AsyncIterator[BlockTool]:
    """Start the tool on files that nobody else writes to; at the end it has written all it was told to, not synced.

    Args:
        file_max_bytes: no file it writes grows beyond that.

    Raises:
        EngineFailed: it did not start, or ended by itself.
        TimedOut: what was done inside took too long.
    """
    directory = Path(tempfile.mkdtemp(prefix="hearth-disk-"))
    try:
        child, monitor = await _start(files, directory, file_max_bytes)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                yield BlockTool(monitor, child.pid)
                with contextlib.suppress(QmpClosed):  # it may end before it has answered
                    await monitor.execute("quit")
            async with asyncio.timeout(END_TIMEOUT_S):
                end = await child.wait()
            if end.status != 0:
                raise EngineFailed("QEMU's block layer failed", details=f"{end}")
        finally:
            child.kill()
            await child.wait()
            await monitor.close()
    except TimeoutError as error:
        raise TimedOut("the layers of a disk were not put together", details=f"within {TIMEOUT_S:g} s") from error
    except EngineFailed as error:
        said = f"{error.brief} {error.details} {read_log(directory)}".strip()
        raise _failure(said) from error
    finally:
        await on_own_thread("remove", functools.partial(remove_tree, directory))


async def _start(files: Sequence[DiskFile], directory: Path, file_max_bytes: int) -> tuple[Child, Qmp]:
    with contextlib.ExitStack() as stack:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        stack.callback(theirs.close)
        ours.setblocking(False)
        undo = stack.enter_context(contextlib.ExitStack())
        undo.callback(ours.close)
        descriptors = {QMP: theirs.fileno()}
        for number, file in enumerate(files):
            flags = os.O_RDWR if file.is_writable else os.O_RDONLY
            descriptor = os.open(file.path, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
            stack.callback(os.close, descriptor)
            descriptors[FIRST_FILE + number] = descriptor
        child = await _spawn(command(files), descriptors, directory, file_max_bytes)
        undo.callback(enclosure.bury, child)
        theirs.close()
        monitor = await Qmp.open(ours)
        undo.pop_all()
        return child, monitor


async def _spawn(words: list[str], descriptors: Mapping[int, int], directory: Path, file_max_bytes: int) -> Child:
    limits: dict[str, int] = {
        "RLIMIT_AS": ADDRESS_SPACE_BYTES,
        "RLIMIT_CPU": CPU_S,
        "RLIMIT_FSIZE": file_max_bytes,
        "RLIMIT_NOFILE": OPEN_FILES_MAX,
        "RLIMIT_CORE": 0,
    }
    with log_file(directory) as output:
        if may_give_users():
            user = take_user(directory)
            limits["RLIMIT_NPROC"] = PROCESSES_MAX
            # Not on a thread of its own: the signal comes when the thread ends that started it (prctl(2)).
            return spawn([*_confined(user, limits), *words], descriptors=descriptors, output=output)
        with enclosure.open_gate(directory / "gate.sock") as gate:
            enclosed = enclosure.Enclosed(argv=words, limits=limits, gate=GATE)
            handed = {**descriptors, GATE: gate.fileno()}
            start = functools.partial(enclosure.start, enclosed, descriptors=handed, output=output)
            return await on_own_thread("start a block tool", start, discard=enclosure.bury)


def _confined(user: int, limits: Mapping[str, int]) -> list[str]:
    """Give the words before a command: no network, a user of its own, bounds, and an end with this daemon."""
    bounds = [f"--{name.removeprefix('RLIMIT_').lower()}={most}" for name, most in limits.items()]
    return [
        *("unshare", "--net", "--ipc", "--uts", "--"),
        *setpriv_prefix(user, user),
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("prlimit", *bounds, "--"),
    ]


def _failure(said: str) -> Exception:
    if FULL in said:
        return NoSpace("the disk is full", details=said, resolution="free some space, or choose another HEARTH_DATA")
    return EngineFailed("the layers of a disk could not be put together", details=said)
