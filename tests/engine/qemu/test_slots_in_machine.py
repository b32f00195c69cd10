"""One real guest that is given volumes while it runs, uses them and gives them back."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.agent.client import AgentError, Client
from tests.boot import boot_files
from tests.engine.qemu.test_slots import MEBIBYTE, content, open_file
from tests.ports import free_port

from hearth.engine.qemu.command import Descriptor, QemuSpec, build
from hearth.engine.qemu.handover import connect, listening, log_file, read_log
from hearth.engine.qemu.qmp import Qmp
from hearth.engine.qemu.slots import all_slots, attach, detach
from hearth.host.spawn import setpriv_prefix, spawn
from hearth.host.tsc import tsc_khz
from hearth.model import Accelerator
from hearth.wire.frames import FrameType
from hearth.wire.messages import VolumeMount, VolumesRequest

WRITABLE, *_, READ_ONLY = all_slots()
USER = 1_894_000_000
"""Of the guest's VMM: it owns nothing."""


class Guest:
    """A booted machine with slots, its monitor, and an agent that runs commands as root."""

    def __init__(self, monitor: Qmp, client: Client, directory: Path) -> None:
        self.monitor = monitor
        self._client = client
        self._directory = directory

    async def sh(self, script: str) -> tuple[int, str]:
        result = await asyncio.to_thread(self._client.run, "sh", "-c", script, user="root")
        return result.exit_code, (result.stdout + result.stderr).decode()

    async def user(self, script: str) -> str:
        """Run a script as the sandbox's user."""
        result = await asyncio.to_thread(self._client.run, "sh", "-c", script)
        assert result.exit_code == 0, result.stderr
        return result.stdout.decode()

    async def settle(self, *volumes: VolumeMount) -> None:
        """Have these volumes mounted and no other."""
        request = VolumesRequest(volumes=[*volumes])
        answer = await asyncio.to_thread(self._client.ask, FrameType.VOLUMES_REQ, request, FrameType.VOLUMES_RESP)
        assert answer == {"status": "ok"}

    async def ok(self, script: str) -> str:
        status, said = await self.sh(script)
        assert status == 0, f"{script}: {said} {read_log(self._directory)}"
        return said


@contextlib.asynccontextmanager
async def booted(directory: Path) -> AsyncIterator[Guest]:
    """The product's own command line and, in place of a TAP, QEMU's user network."""
    boot = boot_files()
    overlay = overlay_over(boot.rootfs, directory / "root.qcow2")
    control, forward = free_port(), free_port()
    spec = QemuSpec(
        name="slots",
        accelerator=Accelerator.TCG,
        cpus=1,
        memory_mib=256,
        tsc_khz=tsc_khz(),
        guest_cidr="10.0.2.15/24",
        gateway="10.0.2.2",
    )
    bus = "device" if spec.tsc_khz else "pci"
    words = [
        *("-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{control}-:1024,hostfwd=tcp:127.0.0.1:{forward}-:1025"),
        *("-device", f"virtio-net-{bus},netdev=n"),
    ]
    with (
        open_file(boot.kernel, os.O_RDONLY) as kernel,
        open_file(boot.initramfs, os.O_RDONLY) as initramfs,
        open_file(boot.rootfs, os.O_RDONLY) as base,
        open_file(overlay) as disk,
        listening(directory / "qmp.sock") as qmp,
        listening(directory / "console.sock") as console,
        log_file(directory) as log,
    ):
        handed: dict[int, int] = {
            Descriptor.QMP: qmp.fileno(),
            Descriptor.CONSOLE: console.fileno(),
            Descriptor.KERNEL: kernel,
            Descriptor.INITRAMFS: initramfs,
            Descriptor.BASE: base,
            Descriptor.OVERLAY: disk,
        }
        command = [*setpriv_prefix(USER, USER), *build("qemu-system-x86_64", spec), *words]
        child = spawn(command, descriptors=handed, output=log)
    try:
        with socket.socket(socket.AF_UNIX) as screen:
            screen.connect(str(directory / "console.sock"))
            screen.settimeout(240)
            monitor = await Qmp.open(connect(directory / "qmp.sock"))
            try:
                await asyncio.to_thread(wait_for, screen, b"agent listening")
                yield Guest(monitor, Client(("127.0.0.1", control), ("127.0.0.1", forward)), directory)
            finally:
                await monitor.close()
    finally:
        child.kill()
        await child.wait()


def wait_for(screen: socket.socket, words: bytes) -> None:
    said = b""
    while words not in said:
        data = screen.recv(65_536)
        assert data, said
        said += data


def ext4(path: Path, label: str) -> Path:
    with path.open("wb") as file:
        file.truncate(64 * MEBIBYTE)
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", label, str(path)], check=True)
    return path


def require_clean(image: Path) -> None:
    subprocess.run(["e2fsck", "-fn", str(image)], capture_output=True, check=True)


def replay(image: Path) -> None:
    assert subprocess.run(["e2fsck", "-fp", str(image)], capture_output=True, check=False).returncode in {0, 1}


def overlay_over(base: Path, overlay: Path) -> Path:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, overlay], check=True)
    return overlay


def debugfs(image: Path, request: str, *, write: bool = False) -> bytes:
    words = ["debugfs", *(["-w"] if write else []), "-R", request, str(image)]
    return subprocess.run(words, capture_output=True, check=True).stdout


@pytest.mark.vm
@pytest.mark.root
@pytest.mark.slow
async def test_a_running_guest_mounts_writes_and_gives_back_volumes_it_was_not_started_with(tmp_path: Path) -> None:
    first, second, share = (ext4(tmp_path / name, name) for name in ("first", "second", "share"))
    (tmp_path / "note").write_text("for all to read")
    debugfs(share, f"write {tmp_path / 'note'} note", write=True)
    shared = content(share)
    async with booted(tmp_path) as guest:
        assert await guest.ok("cat /sys/class/block/vdb/size /sys/class/block/vdi/size") == "0\n0\n"
        assert await guest.ok("cat /sys/class/block/vdb/serial /sys/class/block/vdi/serial") == "slot0slot7"

        with open_file(first) as descriptor:
            await attach(guest.monitor, WRITABLE, descriptor, running=True)
        written = await guest.ok(
            "mkdir /v && mount /dev/vdb /v && head -c 8000000 /dev/urandom > /v/file && sha256sum < /v/file"
        )
        status, said = await guest.sh("cd /v && umount /v")
        assert (status, "busy" in said) == (32, True)
        # Freed blocks become holes on the host.
        await guest.ok(
            "head -c 20000000 /dev/urandom > /v/much && sync && rm /v/much && sync && fstrim /v && umount /v"
        )
        assert first.stat().st_blocks * 512 < 24 * MEBIBYTE
        await detach(guest.monitor, WRITABLE, running=True)
        status, said = await guest.sh("cat /sys/class/block/vdb/size; mount /dev/vdb /v")
        assert (status, said.splitlines()[0]) == (32, "0")
        require_clean(first)
        assert f"{hashlib.sha256(debugfs(first, 'cat /file')).hexdigest()}  -\n" == written

        with open_file(share, os.O_RDONLY) as descriptor:
            await attach(guest.monitor, READ_ONLY, descriptor, running=True)
        assert await guest.ok("mkdir /s && mount -o ro /dev/vdi /s && cat /s/note") == "for all to read"
        assert await guest.ok("umount /s; cat /sys/class/block/vdi/ro") == "1\n"
        status, said = await guest.sh("blockdev --setrw /dev/vdi; dd if=/dev/zero of=/dev/vdi count=1 conv=fsync")
        assert (status, "not permitted" in said) == (1, True)

        # Nothing of what the guest remembers of the first volume reaches the second.
        with open_file(second) as descriptor:
            await attach(guest.monitor, WRITABLE, descriptor, running=True)
        hashed = await guest.ok("sha256sum < /dev/vdb")
        assert hashed == content(second)

        # Taken away under its feet: the guest gets errors, neither volume is touched any more.
        await guest.ok("mount /dev/vdb /v && echo kept > /v/kept && sync")
        await detach(guest.monitor, WRITABLE, running=True)
        before = content(first), content(second)
        assert (await guest.sh("echo lost > /v/lost && sync /v/lost"))[0] != 0
        await guest.ok("umount -l /v")
        assert (content(first), content(second)) == before
        await detach(guest.monitor, READ_ONLY, running=True)
    assert content(share) == shared
    replay(second)
    assert debugfs(second, "cat /kept") == b"kept\n"


@pytest.mark.vm
@pytest.mark.root
@pytest.mark.slow
async def test_the_agent_mounts_what_it_is_told_and_lets_go_of_nothing_that_is_in_use(tmp_path: Path) -> None:
    data, share = (ext4(tmp_path / name, name) for name in ("data", "share"))
    mounts = [
        VolumeMount(device="/dev/vdb", mount="/srv/data"),
        VolumeMount(device="/dev/vdi", mount="/srv/share", read_only=True),
    ]
    async with booted(tmp_path) as guest:
        # The agent is told before the kernel has heard of the volumes.
        telling = asyncio.create_task(guest.settle(*mounts))
        with open_file(data) as descriptor:
            await attach(guest.monitor, WRITABLE, descriptor, running=True)
        with open_file(share, os.O_RDONLY) as descriptor:
            await attach(guest.monitor, READ_ONLY, descriptor, running=True)
        await telling
        await guest.settle(*mounts)
        table = (await guest.ok("grep /srv/ /proc/mounts")).splitlines()
        assert [line.split()[:3] for line in table] == [
            ["/dev/vdb", "/srv/data", "ext4"],
            ["/dev/vdi", "/srv/share", "ext4"],
        ]
        assert table[0].split()[3].startswith("rw,nosuid,nodev,noatime")
        assert table[1].split()[3].startswith("ro,nosuid,nodev,noatime")

        await guest.ok("chown 1000:1000 /srv/data")
        await guest.user("echo kept > /srv/data/file")
        holders = {
            "a directory": "cd /srv/data && (sleep 1000 >/dev/null 2>&1 & echo $!)",
            "mounts of its own": "unshare -m sh -c '(sleep 1000 >/dev/null 2>&1 & echo $!)'",
        }
        for what, script in holders.items():
            pid = (await guest.ok(script)).strip()
            with pytest.raises(AgentError, match="conflict: /"):
                await guest.settle(mounts[1])
            await guest.ok(f"kill -9 {pid}; while test -d /proc/{pid}; do :; done")
            await guest.settle(*mounts)
            assert await guest.user("cat /srv/data/file") == "kept\n", what

        with pytest.raises(AgentError, match="conflict: /srv/share: /dev/vdi is mounted there already"):
            await guest.settle(VolumeMount(device="/dev/vdb", mount="/srv/share"), mounts[1])
        await guest.ok("mkdir /srv/again && mount --bind /srv/data /srv/again")
        await guest.settle()
        assert (await guest.sh("grep /srv/ /proc/mounts"))[1] == ""
        await detach(guest.monitor, WRITABLE, running=True)
        await detach(guest.monitor, READ_ONLY, running=True)
        require_clean(data)
    assert debugfs(data, "cat /file") == b"kept\n"
