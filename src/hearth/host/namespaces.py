"""Named network namespaces: made, entered and removed without starting a process.

They are kept as ``ip netns`` keeps them, one bind mount each under /run/netns, so that they outlive the daemon and
operators can look into them with ``ip netns exec``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hearth.errors import Conflict, HostUnfit
from hearth.host import kernel
from hearth.host.threads import on_own_thread

T = TypeVar("T")

RUN = Path("/run/netns")
"""Where iproute2 keeps its names (ip-netns(8))."""
OWN_NAMESPACE = Path("/proc/thread-self/ns/net")


async def create(name: str, configure: Callable[[], T], *, discard: Callable[[T], None]) -> T:
    """Make the namespace ``name``, run ``configure`` inside it and give what that returned.

    Nothing is left of the namespace when ``configure`` fails or the caller is cancelled.

    Args:
        name: a file name under /run/netns.
        configure: blocking and short; runs on a thread that lives in the new namespace.
        discard: frees what ``configure`` returned when nobody will receive it.

    Raises:
        Conflict: the name is taken.
        HostUnfit: this process may not make namespaces.
        OSError: from ``configure``.
    """

    def work() -> T:
        _make(name)
        try:
            return configure()
        except BaseException:
            _remove(name)
            raise

    def undo(result: T) -> None:
        discard(result)
        _remove(name)

    return await on_own_thread(f"create {name}", work, discard=undo)


async def enter(name: str, work: Callable[[], T], *, discard: Callable[[T], None]) -> T:
    """Run ``work`` on a thread inside the namespace ``name``; what it opens or starts stays in there.

    Raises:
        FileNotFoundError: there is no such namespace.
        OSError: from ``work``.
    """

    def inside() -> T:
        enter_now(name)
        return work()

    return await on_own_thread(f"enter {name}", inside, discard=discard)


async def connect_in(name: str, address: tuple[str, int], timeout_s: float) -> socket.socket:
    """Give a non-blocking TCP socket connected to ``address`` (IPv4 literal, port) from inside the namespace ``name``.

    A socket belongs for ever to the namespace it was made in, so only the making needs the thread.

    Raises:
        OSError: no such namespace, refused, unreachable, or TimeoutError after ``timeout_s`` seconds.
    """
    stream = await enter(name, _open_socket, discard=socket.socket.close)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().sock_connect(stream, address)
    except BaseException:
        stream.close()
        raise
    return stream


async def delete(name: str) -> None:
    """Remove the name; the kernel frees the namespace when its last user is gone. A missing one is fine."""
    await on_own_thread(f"delete {name}", lambda: _remove(name))


def name_also(old: str, new: str) -> None:
    """Give a namespace a second name; blocking, 0.1 ms. ``delete`` takes the first away, which is dearer.

    Raises:
        Conflict: the new name is taken.
        OSError: there is no such namespace.
    """
    path = RUN / new
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    except FileExistsError as error:
        raise Conflict("the network namespace exists already", details=new) from error
    try:
        kernel.mount(RUN / old, path, kernel.MS_BIND)
    except OSError:
        _remove(new)
        raise


def list_names(prefix: str) -> set[str]:
    """Tell the namespaces whose names begin with ``prefix``, half-made ones (a file without its mount) included."""
    try:
        return {path.name for path in RUN.iterdir() if path.name.startswith(prefix)}
    except FileNotFoundError:
        return set()


def enter_now(name: str) -> None:
    """Move the calling thread, which has to be one of ``threads.on_own_thread``, into the namespace ``name``.

    Raises:
        FileNotFoundError: there is no such namespace.
    """
    descriptor = os.open(RUN / name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.setns(descriptor, kernel.CLONE_NEWNET)
    finally:
        os.close(descriptor)


def _open_socket() -> socket.socket:
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    stream.setblocking(False)
    return stream


def _make(name: str) -> None:
    path = RUN / name
    _share_run_directory()
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    except FileExistsError as error:
        raise Conflict("the network namespace exists already", details=name) from error
    try:
        kernel.unshare(kernel.CLONE_NEWNET)
        kernel.mount(OWN_NAMESPACE, path, kernel.MS_BIND)
    except OSError as error:
        _remove(name)
        if error.errno == errno.EPERM:
            raise _may_not(error) from error
        raise


def _remove(name: str) -> None:
    path = RUN / name
    with contextlib.suppress(FileNotFoundError):
        try:
            kernel.unmount(path, kernel.MNT_DETACH)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: the file is there, the mount never was
                raise
        path.unlink()


def _share_run_directory() -> None:
    """Make /run/netns a shared mount, as ``ip netns add`` does: a removal here is a removal in every mount namespace.

    Without it a service started with private mounts meanwhile would keep our namespaces alive.
    """
    try:
        RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            kernel.mount("", RUN, kernel.MS_SHARED | kernel.MS_REC)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: it is no mount point yet
                raise
        else:
            return
        lock = os.open(RUN, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not os.path.ismount(RUN):
                kernel.mount(RUN, RUN, kernel.MS_BIND | kernel.MS_REC)
            kernel.mount("", RUN, kernel.MS_SHARED | kernel.MS_REC)
        finally:
            os.close(lock)
    except PermissionError as error:
        raise _may_not(error) from error


def _may_not(error: OSError) -> HostUnfit:
    return HostUnfit(
        "this process may not make network namespaces",
        details=str(error),
        resolution="run the daemon as root, or give it CAP_SYS_ADMIN and CAP_NET_ADMIN",
    )
