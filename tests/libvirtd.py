"""A libvirtd for tests: its own directories, sockets and users, in mounts of its own, ended with the run.

As root it looks for everything in fixed places; what it finds there are directories of ours, which nobody else sees.
It has process numbers of its own, too: its machines belong to whoever is number 1, who buries them as init does (a dead
one that nobody buries is a living one to libvirt, for which it waits), and all end with that one.
``TEST_LIBVIRT_URI`` names another libvirt instead; what needs to stop and start it is skipped then.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hearth.errors import HostUnfit
from hearth.host.libvirt_binding import Connection, load_binding

READY_S, END_S, PAUSE_S = 120.0, 60.0, 0.05
"""At its first start it asks QEMU for all it can do: seconds, many on a busy host."""
REPLACED = {"run": "/run", "lib": "/var/lib", "cache": "/var/cache", "log": "/var/log", "etc": "/etc/libvirt"}
USER = "libvirt-qemu"
"""Debian's build looks it up, whatever its settings say."""
SETTINGS = """\
unix_sock_dir = "{root}/sockets"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
host_uuid = "{uuid}"
log_outputs = "3:stderr"
"""
QEMU_SETTINGS = """\
user = "+0"
group = "+0"
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
"""


class Libvirtd:
    """A running libvirtd, or the URI of somebody else's."""

    def __init__(self, uri: str, own: OwnLibvirtd | None = None) -> None:
        self.uri = uri
        self.own = own

    @contextlib.contextmanager
    def connected(self) -> Iterator[Any]:
        """Give a connection of the binding itself, as an operator's own tool has one."""
        connection: Connection = load_binding().open(self.uri)
        try:
            yield connection
        finally:
            connection.close()

    @contextlib.contextmanager
    def pool(self, directory: Path) -> Iterator[str]:
        """Define and start a pool of a directory; afterwards it is stopped and forgotten, its files are not."""
        with self._pool("dir", f"<target><path>{directory}</path></target>") as name:
            yield name

    @contextlib.contextmanager
    def group_pool(self, group: str) -> Iterator[str]:
        """Define a pool of a volume group as ``pool`` does one of a directory."""
        source = f"<source><name>{group}</name><format type='lvm2'/></source>"
        with self._pool("logical", f"{source}<target><path>/dev/{group}</path></target>") as name:
            yield name

    @contextlib.contextmanager
    def _pool(self, kind: str, inner: str) -> Iterator[str]:
        name = f"hearth-test-{secrets.token_hex(6)}"
        with self.connected() as connection:
            pool = connection.storagePoolDefineXML(f"<pool type='{kind}'><name>{name}</name>{inner}</pool>", 0)
            pool.create(0)
        try:
            yield name
        finally:
            with self.connected() as connection:
                pool = connection.storagePoolLookupByName(name)
                if pool.isActive():
                    pool.destroy()
                pool.undefine()

    @contextlib.contextmanager
    def domain(self, xml: str) -> Iterator[Any]:
        """Define a domain; afterwards it is ended and forgotten."""
        with self.connected() as connection:
            domain = connection.defineXML(xml)
            try:
                yield domain
            finally:
                if domain.isActive():
                    domain.destroy()
                domain.undefine()


class OwnLibvirtd:
    """A server of our own: its directory, and its process while it runs."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"qemu+unix:///system?socket={self._root}/sockets/libvirt-sock"

    def pid(self) -> int:
        """Give the server's process id as we see it."""
        assert self._process is not None
        shell = _child_of(self._process.pid)
        return _child_of(shell)

    def make(self) -> None:
        """Make its directories and settings."""
        for name in (*REPLACED, "sockets"):
            (self._root / name).mkdir(mode=0o711)
        (self._root / "etc/libvirtd.conf").write_text(SETTINGS.format(root=self._root, uuid=uuid.uuid4()))
        (self._root / "etc/qemu.conf").write_text(QEMU_SETTINGS)
        users, groups = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
        (self._root / "passwd").write_text(f"{users}{USER}:x:64055:64055::/:/usr/sbin/nologin\n")
        (self._root / "group").write_text(f"{groups}{USER}:x:64055:\nkvm:x:64056:\n")

    def start(self) -> None:
        """Start the server and wait until it answers."""
        places = {**REPLACED, "passwd": "/etc/passwd", "group": "/etc/group"}
        mounts = [f'mount --bind "$0/{name}" {place}' for name, place in places.items()]
        script = " && ".join([*mounts, '{ libvirtd -f "$0/etc/libvirtd.conf" -p "$0/pid" & wait; }'])
        apart = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
        enter = [*apart, "--", "sh", "-c", script, str(self._root)]
        with (self._root / "output").open("ab") as output:
            self._process = subprocess.Popen(enter, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        deadline = time.monotonic() + READY_S
        binding = load_binding()
        while True:
            try:
                binding.open(self.uri).close()
            except binding.libvirtError:
                said = (self._root / "output").read_text()
                assert self._process.poll() is None and time.monotonic() < deadline, said
                time.sleep(PAUSE_S)
            else:
                return

    def stop(self) -> None:
        """End the server and its machines at once, and wait for the last of them; what they wrote stays."""
        if self._process is not None:
            children = _children_of(self._process.pid) if self._process.poll() is None else []
            ends = [os.pidfd_open(child) for child in children]
            try:
                self._process.kill()
                self._process.wait(END_S)
                for end in ends:  # the first one's comes when all that live with it have ended
                    assert select.select([end], [], [], END_S)[0], "it does not end"
            finally:
                for end in ends:
                    os.close(end)
            self._process = None


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _child_of(pid: int) -> int:
    [child] = _children_of(pid)
    return child


@contextlib.contextmanager
def running_libvirtd() -> Iterator[Libvirtd]:
    """Give the libvirt that ``TEST_LIBVIRT_URI`` names, else one of our own; skip where there is neither."""
    try:
        load_binding()
    except HostUnfit as error:
        pytest.skip(str(error))
    if uri := os.environ.get("TEST_LIBVIRT_URI"):
        yield Libvirtd(uri)
        return
    with own_libvirtd() as server:
        yield Libvirtd(server.uri, server)


@contextlib.contextmanager
def own_libvirtd() -> Iterator[OwnLibvirtd]:
    """Start a server of our own; skips without root."""
    if os.geteuid() != 0 or shutil.which("libvirtd") is None:
        pytest.skip("needs root and libvirtd")
    with tempfile.TemporaryDirectory(prefix="libvirtd-") as directory:
        server = OwnLibvirtd(Path(directory))
        server.make()
        try:
            server.start()
            yield server
        finally:
            server.stop()
