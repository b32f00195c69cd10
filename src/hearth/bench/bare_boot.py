"""A plain QEMU boot of hearth's kernel to the first line of init: the floor under every boot of a machine."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from hearth.bench.daemon import need_images
from hearth.bench.processes import find_program
from hearth.bench.samples import SampleFailed
from hearth.config import load_data_directory
from hearth.engine.qemu.accelerator import KNOWN_LINE
from hearth.engine.qemu.command import Descriptor, QemuSpec, build
from hearth.engine.qemu.launcher import BINARY
from hearth.host.spawn import spawn
from hearth.host.tsc import tsc_khz
from hearth.image.store import ImageStore
from hearth.model import Accelerator

BOOT_TIMEOUT_S = 120.0
MEMORY_MIB = 256


def boot_to_init(accelerator: Accelerator) -> float:
    """Boot without disk and network until init says its first word; gives seconds from QEMU's start.

    The machine is the one that hearth uses, so that what is compared is what hearth does around it.

    Raises:
        Skipped: images or QEMU are missing.
        SampleFailed: init did not come up.
    """
    need_images()
    store = ImageStore(load_data_directory())
    spec = QemuSpec(
        name=f"hearth-bench-{os.getpid()}",
        accelerator=accelerator,
        cpus=1,
        memory_mib=MEMORY_MIB,
        tsc_khz=tsc_khz(),
        disk=False,
    )
    argv = build(find_program(BINARY), spec)
    with contextlib.ExitStack() as stack:
        console = stack.enter_context(socket.socket(socket.AF_UNIX))
        descriptors: dict[int, int] = {
            Descriptor.KERNEL: stack.enter_context(_opened(store.get("kernel").path)),
            Descriptor.INITRAMFS: stack.enter_context(_opened(store.get("agent").path)),
            Descriptor.QMP: stack.enter_context(_listening()).fileno(),
        }
        listener = stack.enter_context(_listening())
        descriptors[Descriptor.CONSOLE] = listener.fileno()
        output = stack.enter_context(_opened(Path(os.devnull), os.O_WRONLY))
        started = time.perf_counter()
        child = spawn(argv, descriptors=descriptors, output=output)
        try:
            console.connect(listener.getsockname())
            _wait_for_line(console)
            return time.perf_counter() - started
        finally:
            child.kill(signal.SIGKILL)
            os.waitid(os.P_PID, child.pid, os.WEXITED)
            child.close()


def qemu_version() -> None:
    """Start QEMU to print its version: what its process costs before any machine."""
    subprocess.run([find_program(BINARY), "--version"], check=True, stdin=subprocess.DEVNULL, capture_output=True)


def _wait_for_line(console: socket.socket) -> None:
    seen = b""
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    while KNOWN_LINE.encode() not in seen:
        readable, _, _ = select.select([console], [], [], max(deadline - time.monotonic(), 0))
        data = console.recv(65536) if readable else b""
        if not data:
            raise SampleFailed(f"no {KNOWN_LINE!r} on the console: {seen[-500:].decode('ascii', 'replace')}")
        seen += data


@contextlib.contextmanager
def _listening() -> Iterator[socket.socket]:
    """Give a socket that listens on an abstract name of the kernel's choice: no file to clean up (unix(7))."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")
        listener.listen(1)
        yield listener


@contextlib.contextmanager
def _opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
