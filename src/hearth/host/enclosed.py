"""A program of its own: starts one command where it sees nothing of this host, and opens sockets beside it for us.

It is run by a bare interpreter (``enclosure.start``), compiled beforehand, and imports the standard library alone. A
user namespace gives it what takes no right of this host: a network with nothing but a loopback, a root directory with
no files but those of the operating system, process numbers of its own. The command becomes a child of whoever started
this program; what stays of the program itself is the porter, which hands out sockets of that network and ends with the
command.
"""

# Every machine's start waits for this program, and so does every look at a golden image: typing, and enum, which signal
# and socket import, took half of the processor's time for all of it; pathlib, json and contextlib are no better.
# ruff: noqa: PTH102, PTH103, PTH110, PTH112, PTH114, PTH115, PTH120, PTH211, SIM105

from __future__ import annotations

import _socket
import ctypes
import fcntl
import marshal
import os
import resource
import select
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn
else:
    import _signal as signal

CLONE_PARENT = 0x8000
CLONE_NEWNS = 0x20000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
"""linux/sched.h"""
SYS_CLONE = {"x86_64": 56, "aarch64": 220}
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
SYS_MOUNT_SETATTR = 442
"""asm/unistd.h"""
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 2, 4, 8, 32
MS_RDONLY, MS_BIND, MS_REC, MS_SLAVE = 1, 0x1000, 0x4000, 0x80000
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
MOUNT_ATTR_READ_ONLY, MOUNT_ATTR_NO_SUID = 1, 2
"""linux/mount.h"""
PR_SET_PDEATHSIG, PR_SET_NAME, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 15, 24, 38
"""linux/prctl.h"""
LAST_CAPABILITY = 63
SIOCSIFFLAGS, IFF_UP = 0x8914, 1
"""linux/sockios.h, linux/if.h"""
CLOSE_ALL_ABOVE = 0x7FFFFFFF
ROOT = "/tmp"  # noqa: S108 - nothing is put there: it is covered
"""Where the new root is put together, hidden from all others; every system has this directory."""

_libc = ctypes.CDLL(None, use_errno=True)


def main(status: int, gate: int, orders: int) -> int:
    """Do as ``orders`` (a descriptor) say; tell ``status`` the command's process id, or in words what failed."""
    with open(orders, "rb") as stream:
        order = marshal.load(stream)  # noqa: S302 - whoever started us wrote it
    for descriptor in (status, gate):  # the command gets all others
        os.set_inheritable(descriptor, False)
    try:
        enclose()
        furnish(order["read_only"], order["devices"])
        if order["switch"] is not None:
            start_switch(order, status)
        pid = clone(CLONE_PARENT | CLONE_NEWPID | signal.SIGCHLD)
        if pid == 0:
            become(order, status)
        os.write(status, f"{pid}\n".encode())
        if os.fork() == 0:
            keep_gate(gate, os.pidfd_open(pid))
    except OSError as error:
        os.write(status, f"{error.filename or 'enclosure'}: {error.strerror}\n".encode())
        return 1
    return 0


def enclose() -> None:
    """Leave this host's users, mounts, network and other names behind; the user stays who it is, with rights inside."""
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(CLONE_NEWUSER), "user namespace")
    for file, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        try:
            with open(f"/proc/self/{file}", "w") as stream:
                stream.write(text)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"user namespace's {file}") from error
    _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS), "namespaces")
    any_socket = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    fcntl.ioctl(any_socket.fileno(), SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
    any_socket.close()


def furnish(read_only: Sequence[str], devices: Sequence[str]) -> None:
    """Put together the root directory: the named directories for reading, the named devices, nothing else."""
    _mount("none", "/", None, MS_REC | MS_SLAVE)
    # Opened before they are hidden: what is to be seen may itself lie below the directory that is covered.
    sources = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in (*read_only, *devices) if os.path.exists(path)}
    _mount("none", ROOT, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,nr_inodes=256,mode=755")
    for name in ("proc", "tmp"):
        os.mkdir(f"{ROOT}/{name}")
    for path, descriptor in sources.items():
        target = f"{ROOT}{path}"
        if os.path.islink(path):
            os.symlink(os.readlink(path), target)
            continue
        if os.path.isdir(path):
            os.makedirs(target)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        _mount(f"/proc/self/fd/{descriptor}", target, None, MS_BIND | MS_REC)
        if path in read_only:
            _set_attributes(target, MOUNT_ATTR_READ_ONLY | MOUNT_ATTR_NO_SUID)


def start_switch(order: Mapping[str, Any], status: int) -> None:
    """Start the program at the other end of the command's wire, enclosed like it; it ends when the command does."""
    switch = order["switch"]
    near, far = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
    near.sendall(bytes.fromhex(switch["greeting"]))
    if clone(CLONE_NEWNS | CLONE_NEWPID | signal.SIGCHLD) == 0:
        number = os.dup2(far.fileno(), switch["number"], inheritable=True)
        kept = sorted((number, status))
        os.closerange(3, kept[0])
        os.closerange(kept[0] + 1, kept[1])
        os.closerange(kept[1] + 1, CLOSE_ALL_ABOVE)
        become({**order, "argv": switch["argv"]}, status)
    os.dup2(near.fileno(), switch["number"], inheritable=True)
    near.close()
    far.close()


def clone(flags: int) -> int:
    """Fork with more to say (clone(2)); safe only in a process with one thread."""
    pid = int(_libc.syscall(SYS_CLONE[os.uname().machine], ctypes.c_ulong(flags), None, None, None, None))
    _check(pid, "clone")
    return pid


def become(order: Mapping[str, Any], status: int) -> NoReturn:
    """Become the command: process 1 of its own numbers, without any right inside either. Never returns."""
    try:
        os.setsid()
        _enter_root()
        _drop_rights()
        argv = order["argv"]
        for name, most in order["limits"].items():
            number = getattr(resource, name)
            _, ceiling = resource.getrlimit(number)
            least = most if ceiling == resource.RLIM_INFINITY else min(most, ceiling)
            resource.setrlimit(number, (least, least))
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        if order["dies_with_us"]:
            _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "death signal")
        os.execve(argv[0], argv, order["environment"])  # noqa: S606 - a program and its arguments, which is what we want
    except OSError as error:
        os.write(status, f"{error.filename or 'command'}: {error.strerror}\n".encode())
    os._exit(127)


def keep_gate(gate: int, command: int) -> NoReturn:
    """Give a socket of this network to whoever connects to ``gate``, as long as the command lives. Never returns.

    Those who may connect are told by the file system: the gate is a socket in a directory of its owner alone.
    """
    os.setsid()
    _libc.prctl(PR_SET_NAME, b"hearth-porter", 0, 0, 0)
    kept = sorted((gate, command))
    os.closerange(0, kept[0])
    os.closerange(kept[0] + 1, kept[1])
    os.closerange(kept[1] + 1, CLOSE_ALL_ABOVE)
    _drop_rights()
    listener = _socket.socket(fileno=gate)
    listener.setblocking(False)
    poll = select.poll()
    poll.register(gate, select.POLLIN)
    poll.register(command, select.POLLIN)
    while command not in dict(poll.poll()):
        try:
            _hand_out(listener)
        except OSError:  # who asked has left, or there are too many sockets for now
            pass
    os._exit(0)


def _hand_out(listener: _socket.socket) -> None:
    asker = _socket.socket(fileno=listener._accept()[0])  # type: ignore[attr-defined]
    try:
        made = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
        try:
            rights = struct.pack("i", made.fileno())
            asker.sendmsg([b"\0"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        finally:
            made.close()
    finally:
        asker.close()


def _enter_root() -> None:
    _mount_processes(f"{ROOT}/proc")
    _mount("none", ROOT, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
    os.chdir(ROOT)
    _check(_libc.syscall(SYS_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "old root")
    os.chdir("/")


def _mount_processes(target: str) -> None:
    """Show the command itself in /proc and nothing to turn on this host; a user 0 could write to /proc/sys."""
    flags = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY
    try:
        _mount("proc", target, "proc", flags, "subset=pid")
    except OSError:  # where parts of /proc are hidden, as in a container, a new one is refused
        _mount("/proc", target, None, MS_BIND | MS_REC)
        _set_attributes(target, MOUNT_ATTR_READ_ONLY | MOUNT_ATTR_NO_SUID)


def _drop_rights() -> None:
    """Give up all rights inside, too: what the kernel offers to their holders is out of reach (capabilities(7))."""
    for capability in range(LAST_CAPABILITY + 1):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)  # the last ones do not exist
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, data)]
    _check(_libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]), target)


def _set_attributes(target: str, attributes: int) -> None:
    """Set attributes of a mount and of all below it, whatever others they have (mount_setattr(2), Linux 5.12)."""
    wanted = struct.pack("=4Q", attributes, 0, 0, 0)
    where = os.fsencode(target)
    _check(_libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, where, AT_RECURSIVE, wanted, ctypes.c_size_t(32)), target)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:4])))
