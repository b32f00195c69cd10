"""The few system calls the standard library lacks. Loadable anywhere; where a call does not exist it raises ENOSYS."""

from __future__ import annotations

import ctypes
import errno
import os

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
MS_MOVE = 8192
UMOUNT_NOFOLLOW = 8

RB_AUTOBOOT = 0x01234567
RB_POWER_OFF = 0x4321FEDC

_FINIT_MODULE = {"x86_64": 313, "aarch64": 273, "riscv64": 273}

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2).

    Raises:
        OSError: naming the target.
    """
    call = _call("mount")
    result = call(
        ctypes.c_char_p(os.fsencode(source)),
        ctypes.c_char_p(os.fsencode(target)),
        ctypes.c_char_p(os.fsencode(kind)),
        ctypes.c_ulong(flags),
        ctypes.c_char_p(os.fsencode(data)),
    )
    _check(result, target)


def unmount(target: str) -> None:
    """Unmount what was mounted last there; a symlink is not followed (umount2(2)).

    Raises:
        OSError: naming the target; EBUSY when something in it is in use.
    """
    result = _call("umount2")(ctypes.c_char_p(os.fsencode(target)), ctypes.c_int(UMOUNT_NOFOLLOW))
    _check(result, target)


def finit_module(path: str) -> None:
    """Load a kernel module; one that is loaded already is fine (finit_module(2)).

    Raises:
        OSError: naming the module.
    """
    number = _FINIT_MODULE.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), path)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        result = _call("syscall")(
            ctypes.c_long(number), ctypes.c_int(descriptor), ctypes.c_char_p(b""), ctypes.c_int(0)
        )
        if result != 0 and ctypes.get_errno() != errno.EEXIST:
            _check(result, path)
    finally:
        os.close(descriptor)


def reboot(command: int) -> None:
    """reboot(2); returns only when the kernel could not.

    Raises:
        OSError: it refused.
    """
    _check(_call("reboot")(ctypes.c_int(command)), "reboot")


def syncfs(descriptor: int) -> None:
    """Write out the file system a descriptor is on (syncfs(2)).

    Raises:
        OSError: it could not be written.
    """
    _check(_call("syncfs")(ctypes.c_int(descriptor)), None)


def inotify_init() -> int:
    """Give an inotify descriptor, non-blocking and closed on exec.

    Raises:
        OSError: there is no inotify, or too many instances.
    """
    descriptor: int = _call("inotify_init1")(ctypes.c_int(os.O_NONBLOCK | os.O_CLOEXEC))
    _check(min(descriptor, 0), None)
    return descriptor


def inotify_add_watch(descriptor: int, path: str, mask: int) -> int:
    """Watch a path and give the watch's number.

    Raises:
        OSError: naming the path.
    """
    watch: int = _call("inotify_add_watch")(
        ctypes.c_int(descriptor), ctypes.c_char_p(os.fsencode(path)), ctypes.c_uint32(mask)
    )
    _check(min(watch, 0), path)
    return watch


def _call(name: str) -> ctypes._NamedFuncPointer:
    try:
        return getattr(_libc, name)  # type: ignore[no-any-return]
    except AttributeError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), name) from None


def _check(result: int, path: str | None) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
