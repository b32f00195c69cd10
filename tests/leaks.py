"""What a test could leave behind: a snapshot before, a snapshot after, and words for the difference.

Looking costs a third of a millisecond. Only what looks left behind is looked at again, until the kernel has had time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

Snapshot = dict[str, frozenset[str]]

SETTLE_S = 10.0
"""How long the kernel may take to finish what the test ended: the last close of a TAP frees it a moment later."""
GROUPS_SETTLE_S = 60.0
"""An empty control group may be of a machine of another run on this host, which is on its way up or down."""
PAUSE_S = 0.005
PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""
CLONE_NEWNS = 0x20000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
RUN_NETNS = Path("/run/netns")
CONTROL_GROUP = "control group"

_libc = ctypes.CDLL(None, use_errno=True)
_own_directories: set[str] = set()
"""Where the tests of this process put their files, besides the temporary directory."""


def isolate() -> None:
    """Give this process, where it may, mounts of its own with an empty directory of network namespaces.

    Two runs at a time then do not see each other's, and the kernel sweeps when a run is killed. Orphans of our children
    become our children, where they are seen.
    """
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.geteuid() != 0 or _libc.unshare(CLONE_NEWNS) != 0:
        return
    _libc.mount(b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
    RUN_NETNS.mkdir(parents=True, exist_ok=True)
    _libc.mount(b"tmpfs", os.fsencode(RUN_NETNS), b"tmpfs", ctypes.c_ulong(0), b"mode=755")


@contextlib.contextmanager
def own_temporary_directory() -> Iterator[None]:
    """Keep what this run and its children put into the temporary directory apart from what others put there.

    pytest's own directories stay where they are looked for after a failure.
    """
    shared = tempfile.gettempdir()
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", shared)
    with tempfile.TemporaryDirectory(prefix="t-") as directory:
        os.environ["TMPDIR"] = tempfile.tempdir = directory
        try:
            yield
        finally:
            os.environ["TMPDIR"] = tempfile.tempdir = shared


def watch(directory: Path) -> None:
    """Take what lies below a directory for this process's own: every worker and every run has another."""
    _own_directories.add(str(directory.resolve()))


def take() -> Snapshot:
    """Look at everything once."""
    return {kind: frozenset(look()) for kind, look in LOOKS.items()}


def left_behind(before: Snapshot) -> list[str]:
    """Tell what is there now and was not ``before``, and stays: there is time for it to go."""
    found = _difference(before)
    began_s = time.monotonic()
    if found:
        gc.collect()
        found = _difference(before)
    while found and time.monotonic() - began_s < _patience_s(found):
        time.sleep(PAUSE_S)
        there = set(_difference(before))
        found = [item for item in found if item in there]
    return found


def _patience_s(found: list[str]) -> float:
    return GROUPS_SETTLE_S if all(item.startswith(CONTROL_GROUP) for item in found) else SETTLE_S


async def settle(before: Snapshot) -> None:
    """Wait up to ``SETTLE_S`` seconds, with the loop going on, until nothing is there that was not ``before``."""
    deadline = time.monotonic() + SETTLE_S
    while _difference(before) and time.monotonic() < deadline:
        await asyncio.sleep(PAUSE_S)


def half_written(directory: Path) -> list[str]:
    """Tell the temporary files below a directory: whatever publishes atomically has renamed or removed its own."""
    return [f"file {path}" for path in directory.rglob("*.tmp")]


def _difference(before: Snapshot) -> list[str]:
    return [f"{kind} {item}" for kind, look in LOOKS.items() for item in sorted(set(look()) - before[kind])]


def _text(path: Path) -> str:
    """Read what names are in, of which some are others' and no text: of a process a name is cut off after 15 bytes."""
    return path.read_text(errors="backslashreplace")


def _names(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def _processes() -> Iterator[str]:
    """Our living children; dead orphans are buried on the way, dead children of our own complain by themselves."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, _, rest = _text(directory / "stat").rpartition(")")
            state, parent = rest.split()[:2]
            if int(parent) == os.getpid() and state != "Z":
                yield name + ")"


def _network_namespaces() -> Iterator[str]:
    with contextlib.suppress(FileNotFoundError):
        yield from _names(RUN_NETNS)


def _links() -> Iterator[str]:
    return (name for _, name in socket.if_nameindex())


def _mounts() -> Iterator[str]:
    for line in _text(Path("/proc/self/mountinfo")).splitlines():
        if "hearth" in line:
            yield line.split(" ")[4]


def _loop_devices() -> Iterator[str]:
    """Those on files of ours: another run on this host has its own."""
    ours = (str(Path(tempfile.gettempdir()).resolve()), *_own_directories)
    for name in _names(Path("/sys/block")):
        if name.startswith("loop"):
            with contextlib.suppress(OSError):
                file = _text(Path("/sys/block", name, "loop/backing_file")).strip()
                if file.startswith(ours):
                    yield f"{name} on {file}"


def control_groups() -> Iterator[str]:
    """Empty groups of ours: one with processes is in use, perhaps by somebody else on this host."""
    root = Path("/sys/fs/cgroup")
    for hierarchy in (root, *_below(root)):
        for daemons in _below(hierarchy):
            for group in _below(daemons) if daemons.name.startswith("hearth-") else ():
                with contextlib.suppress(OSError):
                    if not (group / "cgroup.procs").read_text():
                        yield str(group)


def _below(directory: Path) -> list[Path]:
    """List a directory; nothing where it is a file, or gone: another run may remove its own at any moment."""
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def _temporary_files() -> Iterator[str]:
    directory = Path(tempfile.gettempdir())
    return (f"{directory}/{name}" for name in _names(directory))


def _descriptors() -> Iterator[str]:
    for name in _names(Path("/proc/self/fd")):
        with contextlib.suppress(OSError):
            target = str(Path("/proc/self/fd", name).readlink())
            if not target.startswith("/proc/"):  # the directory being listed
                yield f"{name} -> {target}"


def _threads() -> Iterator[str]:
    return (f"{thread.name} ({thread.ident})" for thread in threading.enumerate())


LOOKS: dict[str, Callable[[], Iterator[str]]] = {
    "process": _processes,
    "network namespace": _network_namespaces,
    "link": _links,
    "mount": _mounts,
    "loop device": _loop_devices,
    # A group says nothing of whose it is: beside another worker they are counted once, at the end of the whole run.
    **({} if "PYTEST_XDIST_WORKER" in os.environ else {CONTROL_GROUP: control_groups}),
    "temporary file": _temporary_files,
    "descriptor": _descriptors,
    "thread": _threads,
}
