"""The real thing: built from the machine's own packages, found whole, changed by a change, booted by QEMU."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hearth.config import DataDirectory
from hearth.errors import HostUnfit, Unavailable
from hearth.image.apt import Apt
from hearth.image.build import BootSet, build_all, first_error
from hearth.image.initramfs import SOURCE_ROOT, build_agent
from hearth.image.progress import Progress, ignore_progress
from hearth.image.store import Image, ImageStore

MEBIBYTE = 1024 * 1024
BOOT_TIMEOUT_S = 120.0
FINAL_WORD = b"agent listening"


def test_first_error_of_nested_groups_is_raised_alone() -> None:
    inner = HostUnfit("no tool")
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [inner]), Unavailable("no network")])
    assert first_error(group) is inner


@pytest.mark.slow
@pytest.mark.root
async def test_nothing_is_built_twice(image_store: ImageStore, boot_set: BootSet) -> None:
    told: list[Progress] = []
    assert await build_all(image_store, told.append) == boot_set
    assert {step.fraction for step in told} == {1.0}
    assert {step.stage for step in told} == {"kernel", "agent", "rootfs"}


@pytest.mark.slow
@pytest.mark.root
async def test_built_images_are_whole_and_of_their_size(image_store: ImageStore, boot_set: BootSet) -> None:
    for image in (boot_set.kernel, boot_set.agent, boot_set.rootfs):
        await image_store.verify(image)
    assert boot_set.agent.size_bytes < 8 * MEBIBYTE
    assert boot_set.rootfs.path.stat().st_blocks * 512 < 300 * MEBIBYTE
    assert boot_set.agent.facts["kernel"] == boot_set.kernel.id
    assert list(image_store.root.glob("*.tmp")) == []


BUILD_ROOTFS = """
import asyncio, sys
from pathlib import Path
from hearth.config import DataDirectory
from hearth.image.apt import Apt
from hearth.image.rootfs import build_rootfs
from hearth.image.store import ImageStore
store = ImageStore(DataDirectory(root=Path(sys.argv[1])))
store.prepare()
asyncio.run(build_rootfs(store, Apt(store), lambda step: print(step.message, flush=True)))
"""


@pytest.mark.slow
@pytest.mark.root
def test_killed_bootstrap_takes_its_tools_and_mounts_along_and_keeps_its_downloads(tmp_path: Path) -> None:
    store = ImageStore(DataDirectory(root=tmp_path / "data"))
    argv = [sys.executable, "-c", BUILD_ROOTFS, str(store.root.parent)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as building:
        assert building.stdout is not None
        for line in building.stdout:
            if "installing essential packages" in line:
                break
        building.kill()
    assert len(list(store.root.glob("rootfs-*.tmp"))) == 1
    store.sweep()
    assert list(store.root.glob("*.tmp")) == []
    assert store.list() == []
    assert len(list((store.downloads / "archives").glob("*.deb"))) > 50


def read_guest_file(rootfs: Image, path: str) -> str:
    shown = subprocess.run(["debugfs", "-R", f"cat {path}", str(rootfs.path)], capture_output=True, check=True)
    return shown.stdout.decode()


@pytest.mark.slow
@pytest.mark.root
def test_root_file_system_knows_its_user_and_nothing_of_its_builder(boot_set: BootSet) -> None:
    rootfs = boot_set.rootfs
    assert "user:x:1000:1000::/home/user:/bin/bash" in read_guest_file(rootfs, "/etc/passwd")
    assert read_guest_file(rootfs, "/etc/hostname") == "sandbox\n"
    assert read_guest_file(rootfs, "/etc/machine-id") == ""
    assert read_guest_file(rootfs, "/etc/resolv.conf") == ""
    assert read_guest_file(rootfs, "/etc/apt/sources.list").startswith("deb ")
    host = Path("/etc/hostname").read_text().strip()
    assert host not in read_guest_file(rootfs, "/etc/hosts").split()


@pytest.mark.slow
@pytest.mark.root
async def test_agent_that_needs_more_than_the_standard_library_is_refused(
    image_store: ImageStore, boot_set: BootSet, tmp_path: Path
) -> None:
    root = tmp_path / "hearth"
    shutil.copytree(SOURCE_ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "agent/init.py").write_text("import structlog\n")
    with pytest.raises(HostUnfit, match="structlog"):
        await build_agent(image_store, Apt(image_store), boot_set.kernel, ignore_progress, source_root=root)
    assert image_store.get("agent").id == boot_set.agent.id


async def boot(boot_set: BootSet, disk: Path) -> bytes:
    """Give the console of a machine up to the agent's word that it listens."""
    khz = max(1, round(_clock_mhz() * 1000))
    arguments = f"quiet console=ttyS0 reboot=t panic=-1 tsc=reliable no_timer_check tsc_early_khz={khz} lpj={khz * 4}"
    process = await asyncio.create_subprocess_exec(
        "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-m", "256",
        "-M", "microvm,accel=tcg,x-option-roms=off,isa-serial=on,pit=on,pic=on,rtc=on,acpi=on", "-bios", "qboot.rom",
        "-kernel", str(boot_set.kernel.path), "-initrd", str(boot_set.agent.path),
        "-append", f"{arguments} cryptomgr.notests hearth.root=/dev/vda",
        "-drive", f"id=d0,file={disk},format=qcow2,if=none", "-device", "virtio-blk-device,drive=d0",
        "-serial", "stdio",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    console = b""
    try:
        assert process.stdout is not None
        async with asyncio.timeout(BOOT_TIMEOUT_S):
            while FINAL_WORD not in console and (data := await process.stdout.read(4096)):
                console += data
    finally:
        process.kill()
        await process.communicate()
    return console


def _clock_mhz() -> float:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return float(next(line.split(":")[1] for line in lines if line.startswith("cpu MHz")))


@pytest.mark.slow
@pytest.mark.vm
@pytest.mark.root
async def test_machine_boots_from_the_set_until_the_agent_listens(boot_set: BootSet, tmp_path: Path) -> None:
    disk = tmp_path / "disk.qcow2"
    make = await asyncio.create_subprocess_exec(
        *("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(boot_set.rootfs.path), str(disk))
    )
    assert await make.wait() == 0
    console = await boot(boot_set, disk)
    assert FINAL_WORD in console, console.decode("utf-8", "replace")
