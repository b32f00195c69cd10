"""Volume groups on loop devices, seen by nobody but the tests that made them."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from hearth.volume.golden.lvm import LvmSettings

MIB = 1 << 20
NO_DRIVER = ("--driverloaded", "n")
PATHS = "/usr/sbin:/usr/bin:/sbin:/bin"
POOL = "pool"
WATCHER = Path("/run/dmeventd.pid")
HIDDEN_SECTORS, METADATA_SECTORS = 2048, 4 * 2048
"""Before a faulty device begins; what of it always is good: LVM's own."""
NO_DEVICE_MAPPER = "needs root and device-mapper with thin pools: the lab has them, see tests/lab"


@contextmanager
def loop_device(path: Path) -> Iterator[Path]:
    said = subprocess.run(["losetup", "--find", "--show", str(path)], check=True, capture_output=True, text=True)
    device = Path(said.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", str(device)], check=True)


def has_device_mapper() -> bool:
    """Whether this kernel has device-mapper, with thin pools, and lets us use it."""
    if os.geteuid() != 0 or shutil.which("dmsetup") is None:
        return False
    said = subprocess.run(["dmsetup", "targets"], capture_output=True, text=True, check=False)
    return said.returncode == 0 and "thin-pool" in said.stdout


def lvm_command(environment: Mapping[str, str], *words: str) -> str:
    """Run a command of LVM as an operator would."""
    whole = {**environment, "PATH": PATHS, "LC_ALL": "C", "LVM_SUPPRESS_FD_WARNINGS": "1"}
    done = subprocess.run(words, env=whole, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def remove_volumes(settings: LvmSettings) -> None:
    """Leave nothing in a group but its pool."""
    said = lvm_command(settings.environment, "lvs", "--noheadings", "-o", "lv_name", settings.group)
    names = [f"{settings.group}/{name}" for name in said.split() if name != POOL]
    if names:
        lvm_command(settings.environment, "lvremove", "-y", "-ff", *names)


class Faulty:
    """A device-mapper device over another one, whose part with volumes' bytes can be made slow, or lie, or fail."""

    def __init__(self, below: Path) -> None:
        self.name, self._below = f"hearth-{secrets.token_hex(4)}", below
        with below.open("rb") as file:
            self._sectors = file.seek(0, os.SEEK_END) // 512 - HIDDEN_SECTORS

    def behave(self, good_mib: int = 0, kind: str = "linear", words: str = "") -> None:
        """Let the bytes of volumes from so many MiB on be what a target of device-mapper makes of them.

        Args:
            words: of the target's table; ``{place}`` stands for device and offset.
        """
        good = min(METADATA_SECTORS + good_mib * 2048, self._sectors)
        table = f"0 {good} linear {self._below} {HIDDEN_SECTORS}\n"
        if kind != "linear" or good < self._sectors:
            place = f"{self._below} {HIDDEN_SECTORS + good}"
            table += f"{good} {self._sectors - good} {kind} {(words or '{place}').format(place=place)}\n"
        self._dmsetup("load", self.name, text=table)
        self._dmsetup("suspend", "--nolockfs", self.name)
        self._dmsetup("resume", self.name)

    def create(self) -> Path:
        """Make it; gives the name by which the kernel knows it, which is there without udev, too."""
        # LVM sees the device below, too, and must not find the same label there.
        table = f"0 {self._sectors} linear {self._below} {HIDDEN_SECTORS}\n"
        self._dmsetup("create", self.name, text=table)
        return Path("/dev") / self._dmsetup("info", "-c", "--noheadings", "-o", "blkdevname", self.name).strip()

    def remove(self) -> None:
        self._dmsetup("remove", "--retry", self.name)

    def _dmsetup(self, *words: str, text: str | None = None) -> str:
        done = subprocess.run(["dmsetup", *words], input=text or "", check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"dmsetup {' '.join(words)}: {done.stderr}"
        return done.stdout


@contextmanager
def faulty_group(directory: Path, *, size_mib: int) -> Iterator[tuple[LvmSettings, Faulty]]:
    """Make a group of thick volumes on a device that can be made to fail."""
    disk = directory / "disk"
    disk.touch()
    os.truncate(disk, size_mib * MIB)
    with loop_device(disk) as below:
        device = Faulty(below)
        path = device.create()
        try:
            with _group_on(directory, path, has_driver=True) as settings:
                yield settings, device
                device.behave()
        finally:
            device.remove()


@contextmanager
def volume_group(directory: Path, *, size_mib: int, has_driver: bool, pool_mib: int = 0) -> Iterator[LvmSettings]:
    """Make a group on a sparse file, with a thin pool where that has a size."""
    if shutil.which("lvcreate") is None:
        pytest.skip("needs lvm2: run 'make develop' as root")
    disk = directory / "disk"
    disk.touch()
    os.truncate(disk, size_mib * MIB)
    with loop_device(disk) as device, _group_on(directory, device, has_driver=has_driver, pool_mib=pool_mib) as made:
        yield made


@contextmanager
def watched_pool(settings: LvmSettings) -> Iterator[None]:
    """Start LVM's own watcher of thin pools, as LVM does with the first volume unless told otherwise; and end it."""
    was_running = WATCHER.exists()
    subprocess.run(["vgchange", "-qq", "--monitor", "y", settings.group], check=True, capture_output=True)
    yield
    if not was_running and WATCHER.exists():
        os.kill(int(WATCHER.read_text()), signal.SIGKILL)
        WATCHER.unlink()


@contextmanager
def _group_on(directory: Path, device: Path, *, has_driver: bool, pool_mib: int = 0) -> Iterator[LvmSettings]:
    udev = 1 if Path("/run/udev/control").exists() else 0
    (directory / "lvm.conf").write_text(
        f'devices {{ filter=["a|^{device}$|","r|.*|"]\n use_devicesfile=0 }}\n'
        f'global {{ locking_dir="{directory}/lock"\n event_activation=0 }}\n'
        f"activation {{ monitoring=0\n udev_sync={udev}\n udev_rules={udev} }}\nbackup {{ backup=0\n archive=0 }}\n"
    )
    settings = LvmSettings(
        group=f"hearth-{secrets.token_hex(3)}",
        lock=directory / "group.lock",
        environment={"LVM_SYSTEM_DIR": str(directory)},
        has_driver=has_driver,
    )
    extra = () if has_driver else NO_DRIVER
    lvm_command(settings.environment, "pvcreate", "-qq", "-y", str(device))
    lvm_command(settings.environment, "vgcreate", *extra, settings.group, str(device))
    if pool_mib:
        words = ("lvcreate", "-y", "--type", "thin-pool", "-L", f"{pool_mib}m", "-n", POOL, settings.group)
        lvm_command(settings.environment, *words)
    yield settings
    if has_driver:
        lvm_command(settings.environment, "vgremove", "-ff", "-y", settings.group)
