"""What goes wrong with real machines: each time a clear error, nothing half-made left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.boot import copy_images, link_images
from tests.machines.test_first_light import vmm_of
from tests.server.daemon import RunningDaemon, data_directory, running_daemon

from hearth.config import DataDirectory, Settings
from hearth.control.daemon import Daemon, open_daemon
from hearth.engine.base import MachineDied
from hearth.errors import Conflict, HearthError, NoSpace, TimedOut
from hearth.host.directory import load_tag
from hearth.image.apt import Apt
from hearth.image.rootfs import rootfs_from_tree
from hearth.image.store import ImageStore
from hearth.model import SandboxSpec, User
from hearth.sdk.client import Client
from hearth.wire.messages import ExecRequest

KILL_AFTER_S = (0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


@pytest.fixture
def own_images(data: DataDirectory) -> Iterator[DataDirectory]:
    """The set-up's images, copied: a test may add to them. Sparse files stay sparse."""
    data.images.unlink()
    copy_images(data)
    yield data


def machine_traces(data: DataDirectory) -> list[str]:
    """Everything of this data directory's machines that is on the host, whatever their ids."""
    traces = [str(path) for path in data.machines.iterdir()] if data.machines.exists() else []
    tag = load_tag(data)
    for place in (Path("/run/netns"), Path("/sys/fs/cgroup")):
        traces += [str(Path(base) / name) for base, names, _ in os.walk(place) for name in names if tag in name]
    return traces


async def admin_of(daemon: Daemon, data: DataDirectory) -> User:
    return await daemon.users.authenticate(data.admin_key.read_text().strip())


def test_a_vmm_that_is_killed_makes_its_sandbox_failed_and_running_commands_end(client: Client) -> None:
    with client.create(name="victim") as sandbox:
        with sandbox.stream(["sleep", "600"]) as running:
            os.kill(vmm_of(sandbox), signal.SIGKILL)
            with pytest.raises(HearthError):
                list(running)

        deadline = time.monotonic() + 60
        while client.get("victim").view.state == "running" and time.monotonic() < deadline:
            time.sleep(0.02)
        view = client.get("victim").view
        assert view.state == "failed"
        assert view.exit_cause is not None
        assert view.exit_cause.kind == "killed"
        assert view.exit_cause.detail == "the VMM was killed by a signal from outside (SIGKILL)"
        with pytest.raises(Conflict):
            sandbox.run(["true"])


async def test_an_agent_that_never_answers_is_given_up_and_nothing_is_left(data: DataDirectory) -> None:
    async with open_daemon(data, Settings(boot_timeout_s=0.2)) as daemon:
        admin = await admin_of(daemon, data)
        with pytest.raises(TimedOut):
            await daemon.sandboxes.create(admin, SandboxSpec(name="slow"))

        assert await daemon.sandboxes.count() == 0
    assert machine_traces(data) == []


async def test_a_guest_that_cannot_boot_is_told_with_its_last_words(own_images: DataDirectory) -> None:
    with tempfile.TemporaryDirectory() as tree:
        (Path(tree) / "empty").touch()
        image = await rootfs_from_tree(ImageStore(own_images), Path(tree), "broken")
    image.path.chmod(0o600)
    with image.path.open("r+b") as disk:
        disk.write(b"\0" * 1024 * 1024)

    async with open_daemon(own_images, Settings()) as daemon:
        with pytest.raises(MachineDied) as caught:
            await daemon.sandboxes.create(await admin_of(daemon, own_images), SandboxSpec(name="dead", image="broken"))

        assert "console" in caught.value.details
        assert await daemon.sandboxes.count() == 0
    assert machine_traces(own_images) == []


async def test_a_root_file_system_of_one_static_binary_is_enough(own_images: DataDirectory) -> None:
    store = ImageStore(own_images)
    with tempfile.TemporaryDirectory() as tree:
        apt, unpacked = Apt(store), Path(tree) / "unpacked"
        unpacked.mkdir()
        await apt.unpack(await apt.show(["busybox-static"]), unpacked)
        (Path(tree) / "root" / "bin").mkdir(parents=True)
        shutil.copy2(unpacked / "bin" / "busybox", Path(tree) / "root" / "bin" / "busybox")
        await rootfs_from_tree(store, Path(tree) / "root", "bare")

    async with open_daemon(own_images, Settings()) as daemon:
        admin = await admin_of(daemon, own_images)
        await daemon.sandboxes.create(admin, SandboxSpec(name="bare", image="bare"))
        try:
            greeting = await output_of(daemon, admin, "bare", "/bin/busybox", "echo", "hello")
            listing = await output_of(daemon, admin, "bare", "/bin/busybox", "find", "/", "-xdev", "-type", "f")
        finally:
            await daemon.sandboxes.destroy(admin, "bare")
    assert greeting == b"hello\n"
    identity = {b"/etc/hostname", b"/etc/hosts", b"/etc/machine-id", b"/etc/resolv.conf"}  # what CONFIGURE asks for
    assert set(listing.split()) == {b"/bin/busybox"} | identity, "nothing was written that nobody asked for"
    assert machine_traces(own_images) == []


async def output_of(daemon: Daemon, user: User, name: str, *argv: str) -> bytes:
    out = bytearray()
    async with daemon.sandboxes.execute(user, name, ExecRequest(argv=list(argv))) as running:
        async for chunk in running:
            out += chunk.data if chunk.stream == "stdout" else b""
    return bytes(out)


@pytest.mark.parametrize("delay_s", KILL_AFTER_S)
def test_a_daemon_killed_while_it_creates_leaves_a_whole_sandbox_or_none(data: DataDirectory, delay_s: float) -> None:
    with running_daemon(data, "--engine", "qemu") as first:
        creator = threading.Thread(target=create_quietly, args=(first,))
        creator.start()
        wait_for_row(first)
        time.sleep(delay_s)
        first.process.kill()
        creator.join()
        first.process.wait()

    with running_daemon(data, "--engine", "qemu") as second, second.client() as client:
        left = client.list()
        if left:
            assert left[0].run(["echo", "alive"]).stdout == "alive\n"
            left[0].destroy()
        assert machine_traces(data) == []


def create_quietly(house: RunningDaemon) -> None:
    """Create until the daemon is gone, which is no error of ours."""
    with house.client(patience_s=0) as client, contextlib.suppress(HearthError):
        client.create(name="dev")


def wait_for_row(house: RunningDaemon) -> None:
    with house.client() as client:
        while not client.list():
            time.sleep(0.001)


def test_running_machines_survive_a_killed_daemon_and_serve_the_next(data: DataDirectory) -> None:
    with running_daemon(data, "--engine", "qemu") as first, first.client() as client:
        sandbox = client.create(name="dev")
        sandbox.run(["sh", "-c", "echo kept > /tmp/mark"]).check()
        first.process.kill()
        first.process.wait()

    with running_daemon(data, "--engine", "qemu") as second, second.client() as client:
        assert client.get("dev").run(["cat", "/tmp/mark"]).stdout == "kept\n"
        client.destroy("dev")
    assert machine_traces(data) == []


def test_a_machine_killed_while_no_daemon_runs_is_lost_and_said_so(data: DataDirectory) -> None:
    with running_daemon(data, "--engine", "qemu") as first, first.client() as client:
        pid = vmm_of(client.create(name="dev"))
        first.process.kill()
        first.process.wait()
    os.kill(pid, signal.SIGKILL)

    with running_daemon(data, "--engine", "qemu") as second, second.client() as client:
        view = client.get("dev").view
        assert (view.state, bool(view.error)) == ("lost", True)
        assert machine_traces(data) == [str(data.machine(view.id))], "its disk stays until somebody destroys it"
        client.destroy("dev")
        assert machine_traces(data) == []


def test_a_daemon_on_a_copy_of_the_data_directory_leaves_the_originals_machines_alone(data: DataDirectory) -> None:
    words = ("--engine", "qemu", "--pool", "0")
    with running_daemon(data, *words) as first, first.client() as client, client.create(name="dev") as dev:
        with data_directory() as copy:
            first.process.send_signal(signal.SIGSTOP)  # or files come, change and go meanwhile
            try:
                shutil.copytree(data.root, copy.root, dirs_exist_ok=True, symlinks=True, ignore=sockets_in)
            finally:
                first.process.send_signal(signal.SIGCONT)
            with running_daemon(copy, *words) as second, second.client() as other:
                assert other.get("dev").view.state == "lost"

        assert dev.run(["echo", "alive"]).stdout == "alive\n"


def sockets_in(directory: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(directory) / name).is_socket()]


def test_a_process_of_somebody_else_that_bears_a_machines_name_is_neither_taken_nor_killed(data: DataDirectory) -> None:
    with running_daemon(data, "--engine", "qemu") as first, first.client() as client:
        name = f"hearth-{load_tag(data)}-{client.create(name='dev').id}"
        first.process.kill()
        first.process.wait()

    with subprocess.Popen(["sh", "-c", "read line", "-name", name], stdin=subprocess.PIPE, user=65534) as stranger:
        with running_daemon(data, "--engine", "qemu") as second, second.client() as client:
            assert client.get("dev").run(["echo", "alive"]).stdout == "alive\n"
            client.destroy("dev")
        assert stranger.poll() is None
        stranger.kill()


def test_a_vmm_that_does_not_answer_keeps_no_daemon_from_starting_and_is_taken_later(data: DataDirectory) -> None:
    with running_daemon(data, "--engine", "qemu") as first, first.client() as client:
        pid = vmm_of(client.create(name="dev"))
        first.process.kill()
        first.process.wait()

    os.kill(pid, signal.SIGSTOP)
    with running_daemon(data, "--engine", "qemu") as second, second.client() as client:
        assert client.get("dev").view.state == "running"
        os.kill(pid, signal.SIGCONT)
        assert client.get("dev").run(["echo", "alive"]).stdout == "alive\n"
        client.destroy("dev")
    assert machine_traces(data) == []


def test_a_full_disk_refuses_a_sandbox_in_words(house: RunningDaemon) -> None:
    with tempfile.TemporaryDirectory(prefix="hearth-full-") as root:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", root], check=True)
        try:
            small = DataDirectory(root=Path(root))
            link_images(small)
            with running_daemon(small, "--engine", "qemu") as daemon, daemon.client() as client:
                with pytest.raises(NoSpace, match="MiB left"):
                    client.create(name="dev")
                assert client.list() == []
        finally:
            subprocess.run(["umount", root], check=True)
