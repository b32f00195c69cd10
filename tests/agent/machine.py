"""A real machine for tests: QEMU with user networking, the set-up's images and a client of its agent."""

from __future__ import annotations

import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.agent.client import Client
from tests.boot import boot_files
from tests.ports import free_port

BOOT_TIMEOUT_S = 240.0
ADDRESS = "10.0.2.15"
HOST_SEEN_FROM_GUEST = "10.0.2.2"
"""QEMU's user network gives the host's loopback this address (-netdev user, QEMU's manual)."""


class Machine:
    """A QEMU with user networking, its console so far and a client of its agent."""

    def __init__(self, process: subprocess.Popen[bytes], client: Client, directory: Path) -> None:
        self.process = process
        self.client = client
        self.console = b""
        self.directory = directory
        """Holds ``disk.qcow2``."""

    def wait_console(self, text: bytes, count: int = 1) -> None:
        assert self.process.stdout is not None
        end = time.monotonic() + BOOT_TIMEOUT_S
        while self.console.count(text) < count:
            assert select.select([self.process.stdout], [], [], max(0, end - time.monotonic()))[0], self.console
            data = self.process.stdout.read1(65_536)  # type: ignore[attr-defined]
            assert data, self.console
            self.console += data

    def run(self, script: str, **fields: Any) -> str:
        return self.client.run("sh", "-c", script, **fields).stdout.decode()


@contextmanager
def running_machine(
    directory: Path, rootfs: Path, *, memory_mib: int = 256, volume: Path | None = None
) -> Iterator[Machine]:
    """Boot the set-up's kernel and agent over a root file system; ends QEMU by pid. A volume becomes /dev/vdb."""
    boot = boot_files()
    disk = directory / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", rootfs, disk], check=True)
    control, forward = free_port(), free_port()
    words = (
        "quiet console=ttyS0 reboot=t panic=-1 no_timer_check mitigations=off hearth.root=/dev/vda hearth.rootfs=ext4"
    )
    command = [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-M", "q35", "-accel", "tcg,tb-size=64", "-cpu", "max", "-m", str(memory_mib), "-serial", "stdio"),
        *("-kernel", str(boot.kernel), "-initrd", str(boot.initramfs)),
        *("-append", f"{words} hearth.ip={ADDRESS}/24 hearth.gw=10.0.2.2"),
        *("-drive", f"file={disk},format=qcow2,if=virtio"),
        *("-netdev", f"user,id=n,hostfwd=tcp:127.0.0.1:{control}-:1024,hostfwd=tcp:127.0.0.1:{forward}-:1025"),
        *("-device", "virtio-net-pci,netdev=n"),
        *(() if volume is None else ("-drive", f"file={volume},format=raw,if=virtio")),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            machine = Machine(process, Client(("127.0.0.1", control), ("127.0.0.1", forward)), directory)
            machine.wait_console(b"agent listening")
            yield machine
        finally:
            process.kill()
