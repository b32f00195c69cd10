"""Freezes the sandbox's file systems for a snapshot and thaws them, come what may.

Whatever touches a disk here can hang (a slow host, a file system of the guest's making), so it happens on a thread of
its own that nobody waits for longer than was asked. Thawing never waits for a freeze that hangs: that thaws, as soon as
it goes on, what it has frozen itself.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from _queue import SimpleQueue  # ``queue`` gives the same one and loads what nothing here needs
from collections.abc import Iterator

from hearth.agent import syscalls
from hearth.agent.mount_table import Mount, read_mounts, writable_disks
from hearth.agent.refusal import Refused, refusal_of_os, refused
from hearth.agent.seal import say
from hearth.wire.faults import Fault
from hearth.wire.messages import FrozenMount

MAX_TIMEOUT_S = 300.0
MAX_THAW_AFTER_S = 600.0
_FIFREEZE = 0xC0045877
_FITHAW = 0xC0045878


class _Disk:
    """One file system to freeze: a descriptor of it and what is told of it."""

    def __init__(self, point: str, descriptor: int) -> None:
        self.point = point
        self.descriptor = descriptor

    def usage(self) -> FrozenMount:
        facts = os.fstatvfs(self.descriptor)
        return FrozenMount(
            mount=self.point,
            used_bytes=(facts.f_blocks - facts.f_bfree) * facts.f_frsize,
            total_bytes=facts.f_blocks * facts.f_frsize,
            available_bytes=facts.f_bavail * facts.f_frsize,
        )


class _Attempt:
    """One freeze, from its request to its thaw."""

    def __init__(self, proc: int) -> None:
        self._proc = proc
        self._lock = threading.Lock()
        self._open: list[_Disk] = []
        self._frozen: list[_Disk] = []
        self._called_off = threading.Event()
        self.report: list[FrozenMount] = []
        self.error: Refused | None = refused(Fault.INTERNAL, "the freeze broke off")
        self.ended = threading.Event()
        """Set when the freezing thread is through, for better or worse."""
        self.thawed = threading.Event()

    def run(self) -> None:
        """Freeze everything; on failure, or once called off, nothing stays frozen."""
        try:
            for group in writable_disks(read_mounts(self._proc)):
                self._open.append(_open(group))
            for disk in self._open:
                with _named(disk.point):
                    syscalls.syncfs(disk.descriptor)
                    self.report.append(disk.usage())
            for disk in self._open:
                self._freeze(disk)
            self.error = None
        except Refused as error:
            self.error = error
        except OSError as error:
            self.error = refusal_of_os(error)
        finally:
            with self._lock:
                undone = self._called_off.is_set() or self.error is not None
            if undone:
                self.thaw()
            self.ended.set()

    def thaw(self) -> None:
        """Thaw what is frozen and freeze no more; returns when that is done."""
        with self._lock:
            self._called_off.set()
            while self._frozen:
                _thaw(self._frozen.pop().descriptor)
        self.thawed.set()

    def close(self) -> None:
        """Let go of the file systems, once the thread has ended and nothing is frozen."""
        while self._open:
            os.close(self._open.pop().descriptor)

    def _freeze(self, disk: _Disk) -> None:
        with self._lock:
            if self._called_off.is_set():
                raise refused(Fault.BUSY, "the freeze was called off")
        try:
            fcntl.ioctl(disk.descriptor, _FIFREEZE, 0)
        except OSError as error:
            raise _refusal(disk.point, error) from error
        with self._lock:
            if not self._called_off.is_set():
                self._frozen.append(disk)
                return
        _thaw(disk.descriptor)  # it was called off while the kernel was at it


class Freezer:
    """Holds the one freeze that may be under way; any thread may call."""

    def __init__(self, proc: int) -> None:
        """``proc`` is a descriptor of /proc."""
        self._proc = proc
        self._lock = threading.Lock()
        self._attempt: _Attempt | None = None
        self._spare: SimpleQueue[tuple[_Attempt, float]] | None = None
        """Where a thread waits that has watched a freeze to its end: a frozen machine is copied, and every copy would
        begin its life with the end of a thread."""

    @property
    def is_frozen(self) -> bool:
        """True from a freeze's success to its thaw."""
        attempt = self._attempt
        return attempt is not None and attempt.ended.is_set() and attempt.error is None and not attempt.thawed.is_set()

    def freeze(self, timeout_s: float, thaw_after_s: float) -> list[FrozenMount]:
        """Freeze every writable file system on a block device and prove it: each ioctl has succeeded.

        Raises:
            Refused: one cannot be frozen, it took too long, or there is a freeze already; nothing stays frozen then.
        """
        _check("timeout_sec", timeout_s, MAX_TIMEOUT_S)
        _check("thaw_after_sec", thaw_after_s, MAX_THAW_AFTER_S)
        attempt = self._begin()
        threading.Thread(target=self._run, args=(attempt,), name="freeze", daemon=True).start()
        if not attempt.ended.wait(timeout_s):
            attempt.thaw()
            self._forget(attempt)
            raise refused(Fault.BUSY, f"the file systems could not be frozen within {timeout_s:g} s")
        if attempt.error is not None:
            self._forget(attempt)
            raise attempt.error
        self._have_watched(attempt, thaw_after_s)
        return attempt.report

    def release(self) -> bool:
        """Thaw what this agent has frozen; tells whether there was something."""
        with self._lock:
            attempt = self._attempt
        if attempt is None:
            return False
        attempt.thaw()
        self._forget(attempt)
        return True

    def thaw(self) -> None:
        """Thaw whatever this agent, or one before it, has frozen; nothing frozen is fine."""
        if self.release():
            return
        for group in writable_disks(read_mounts(self._proc)):
            with contextlib.suppress(OSError, Refused):
                disk = _open(group)
                try:
                    _thaw(disk.descriptor)
                finally:
                    os.close(disk.descriptor)

    def _begin(self) -> _Attempt:
        with self._lock:
            if self._attempt is not None:
                words = "frozen already" if self._attempt.ended.is_set() else "being frozen at this moment"
                raise refused(Fault.CONFLICT, f"the file systems are {words}")
            self._attempt = _Attempt(self._proc)
            return self._attempt

    def _run(self, attempt: _Attempt) -> None:
        attempt.run()
        if attempt.thawed.is_set():
            self._forget(attempt)

    def _have_watched(self, attempt: _Attempt, thaw_after_s: float) -> None:
        with self._lock:
            spare, self._spare = self._spare, None
        if spare is not None:
            spare.put((attempt, thaw_after_s))
            return
        threading.Thread(target=self._watch, args=(attempt, thaw_after_s), name="thaw", daemon=True).start()

    def _watch(self, attempt: _Attempt, thaw_after_s: float) -> None:
        mine: SimpleQueue[tuple[_Attempt, float]] = SimpleQueue()
        while True:
            if not attempt.thawed.wait(thaw_after_s):
                say(f"hearth: nobody thawed within {thaw_after_s:g} s: thawing")
                attempt.thaw()
                self._forget(attempt)
            with self._lock:
                if self._spare is not None:
                    return
                self._spare = mine
            attempt, thaw_after_s = mine.get()

    def _forget(self, attempt: _Attempt) -> None:
        """Make room for the next freeze, unless the thread of this one still hangs."""
        with self._lock:
            if attempt.ended.is_set() and self._attempt is attempt:
                self._attempt = None
                attempt.close()


def _check(name: str, value_s: float, most_s: float) -> None:
    if not 0 < value_s <= most_s:
        raise refused(Fault.INVALID, f"{name} is {value_s:g}, it must be above 0 and at most {most_s:g}")


def _open(group: list[Mount]) -> _Disk:
    """Open a file system by one of its mount points: one that no other mount hides.

    Raises:
        Refused: there is none.
    """
    why = "hidden below another mount"
    for mount in group:
        if mount.kind.startswith("fuse"):  # opening it may never return, and it cannot be frozen
            why = "a file system in user space"
            continue
        try:
            descriptor = os.open(mount.point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            why = error.strerror or why
            continue
        if not mount.has_plain_number or os.fstat(descriptor).st_dev == mount.device:
            return _Disk(mount.point, descriptor)
        os.close(descriptor)
    raise refused(Fault.CONFLICT, f"{_shown(group[0].point)} cannot be frozen: {why}")


@contextlib.contextmanager
def _named(point: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _refusal(point, error) from error


def _refusal(point: str, error: OSError) -> Refused:
    if error.errno == errno.EBUSY:
        words = "it is frozen already, and not by the host"
    elif error.errno in (errno.EOPNOTSUPP, errno.ENOTTY):
        words = "its kind of file system has no freeze"
    else:
        words = error.strerror or "failed"
    return refused(Fault.CONFLICT, f"{_shown(point)} cannot be frozen: {words}")


def _thaw(descriptor: int) -> None:
    try:
        fcntl.ioctl(descriptor, _FITHAW, 0)
    except OSError as error:
        if error.errno != errno.EINVAL:  # it is not frozen: somebody in the guest has thawed it
            say(f"hearth: thaw: {error.strerror}")


def _shown(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "replace")[:200]
