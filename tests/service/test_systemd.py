"""The service under a real systemd in a real machine: ready when it says so, and machines that outlive it."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.boot import copy_images
from tests.server.daemon import RunningDaemon, data_directory, running_daemon
from tests.service.debian import MASKED, built_package, inside, unpack

from hearth.image.rootfs import rootfs_from_tree
from hearth.image.store import ImageStore
from hearth.sdk.client import Sandbox

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.slow]

PYTHON = "/usr/lib/hearth/bin/python3"
STEP_S = 120
BOOT = """
    echo "+cpu +memory +pids" > /sys/fs/cgroup/cgroup.subtree_control
    mkdir /sys/fs/cgroup/box
    exec unshare --pid --fork --mount --uts --ipc --kill-child sh -c '
        echo 0 > /sys/fs/cgroup/box/cgroup.procs
        exec unshare --cgroup sh -c "
            mount --make-rprivate /
            mount -t proc proc /proc
            umount -l /sys/fs/cgroup
            mount -t cgroup2 cgroup2 /sys/fs/cgroup
            mount -t tmpfs -o mode=755 tmpfs /run
            exec env -i container=other PATH=/usr/sbin:/usr/bin /lib/systemd/systemd"'
"""
IMAGES = """
import asyncio
from pathlib import Path
from hearth.config import DataDirectory
from hearth.image.store import ImageStore, Made
from hearth.model import ImageKind
async def main():
    store = ImageStore(DataDirectory(root=Path("/var/lib/hearth")))
    for kind, name in ((ImageKind.KERNEL, "kernel"), (ImageKind.AGENT, "agent"), (ImageKind.ROOTFS, "debian")):
        async def build(directory, name=name):
            (directory / "content").write_text(name)
            return Made(primary="content", facts={})
        await store.obtain(kind, name, f"key of {name}", build, lambda _: None)
asyncio.run(main())
"""
GROUPED = """
import subprocess
from hearth.host.cgroups import detect
groups = detect("test", "hearth.slice/hearth-machines.service")
group = groups.create("machine", memory_max_bytes=64 << 20, pids_max=10)
process = subprocess.Popen(["sleep", "infinity"], start_new_session=True)
group.add(process.pid)
print(process.pid)
"""
"""A process where the QEMU engine puts its VMMs, by the same code: emulation within emulation would take minutes."""


class Host:
    """The machine whose systemd runs hearth."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._init = ""

    def boot(self) -> None:
        """Start systemd and wait until its units are up."""
        self._sandbox.detach(["sh", "-c", textwrap.dedent(BOOT)], user="root")
        deadline = time.monotonic() + STEP_S
        while not self._init:
            assert time.monotonic() < deadline, "systemd does not come up"
            self._init = self._sandbox.run(["pgrep", "-x", "systemd"], user="root").stdout.strip()
            time.sleep(0.5)
        while self._sandbox.run(self._words("test", "-S", "/run/systemd/private"), user="root").exit_code:
            assert time.monotonic() < deadline, "systemd takes no orders"
            time.sleep(0.5)

    def run(self, *words: str, status: int = 0) -> str:
        """Run a command among the units and give its output."""
        done = self._sandbox.run(self._words(*words), user="root", timeout_sec=STEP_S)
        assert done.exit_code == status, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def is_alive(self, pid: str) -> bool:
        return self._sandbox.run(self._words("kill", "-0", pid), user="root").exit_code == 0

    def main_pid(self) -> str:
        return self.run("systemctl", "show", "-P", "MainPID", "hearth")

    def journal(self) -> list[dict[str, object]]:
        """Give what the daemon logged."""
        self.run("journalctl", "--sync")
        lines = self.run("journalctl", "--no-pager", "-o", "json", "-u", "hearth", "_COMM=python3").splitlines()
        return [json.loads(json.loads(line)["MESSAGE"]) for line in lines]

    def _words(self, *words: str) -> list[str]:
        return ["nsenter", "-t", self._init, "-m", "-p", "-C", "-i", "-u", "--", *words]


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    """A daemon whose images are those of the set-up and one of a Debian with our package in it."""
    package = built_package()
    if package is None:
        pytest.skip("there is no package: run 'make service'")
    tree = Path(tempfile.mkdtemp(prefix="hearth-systemd-"))
    try:
        unpack(tree)
        shutil.copy(package, tree / "root/hearth.deb")
        assert inside(tree, "dpkg", "-i", "/root/hearth.deb").returncode == 0
        (tree / "etc/hearth/hearth.toml").write_text('engine = "local"\n')
        for unit in MASKED:
            (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
        with data_directory() as data:
            copy_images(data)
            asyncio.run(rootfs_from_tree(ImageStore(data), tree, "service", size_mib=1536))
            with running_daemon(data, "--engine", "qemu", "--pool", "0", "--boot-timeout", "120") as running:
                yield running
    finally:
        shutil.rmtree(tree)


@pytest.fixture(scope="module")
def host(daemon: RunningDaemon) -> Iterator[Host]:
    with daemon.client() as client, client.create(name="host", image="service", memory_mb=768) as sandbox:
        made = Host(sandbox)
        made.boot()
        yield made


@dataclass(frozen=True, kw_only=True)
class Service:
    """The service with a sandbox and, where the QEMU engine has its VMMs, a process: numbers of processes."""

    host: Host
    agent: str
    machine: str

    def check_machines(self) -> None:
        """See that both live, and that the daemon of now knows the sandbox."""
        assert self.host.run("pgrep", "-f", "hearth.agent") == self.agent
        assert self.host.run("hearth", "exec", "web", "echo", "still here") == "still here"
        assert self.host.is_alive(self.machine)


@pytest.fixture(scope="module")
def service(host: Host) -> Service:
    host.run(PYTHON, "-c", IMAGES)
    host.run("systemctl", "start", "hearth", "hearth-shutdown")
    host.run("hearth", "create", "web")
    machine = host.run(PYTHON, "-c", GROUPED).split()[-1]
    return Service(host=host, agent=host.run("pgrep", "-f", "hearth.agent"), machine=machine)


def test_systemd_comes_up_with_units_that_it_finds_right(host: Host) -> None:
    assert host.run("systemctl", "is-system-running", "--wait") == "running"
    assert host.run("systemd-analyze", "verify", "hearth.service", "hearth-shutdown.service") == ""


def test_a_restart_leaves_machines_running_and_the_journal_tells_so(service: Service) -> None:
    before = service.host.main_pid()
    service.host.run("systemctl", "restart", "hearth")
    assert service.host.main_pid() not in ("0", before)
    service.check_machines()
    adopted = [entry["adopted"] for entry in service.host.journal() if entry["event"] == "reconciled"]
    assert (adopted[0], adopted[-1]) == (0, 1)


def test_an_upgrade_leaves_machines_running_and_a_stop_of_the_machines_ends_them(service: Service) -> None:
    host, before = service.host, service.host.main_pid()
    # Its own script, as dpkg would run it; unpacking takes minutes in an emulated machine.
    host.run("/var/lib/dpkg/info/hearth.postinst", "configure", "0.0.1")
    assert host.main_pid() not in ("0", before)
    service.check_machines()

    host.run("systemctl", "stop", "hearth-machines")
    assert not host.is_alive(service.machine)
    assert host.run("systemctl", "is-active", "hearth", "hearth-shutdown", status=3).split() == ["inactive"] * 2
