"""Verdicts are kept on disk and forgotten when what they depend on changes."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.boot import boot_files

from hearth.engine.base import BootFiles
from hearth.engine.qemu.accelerator import KVM_DEVICE, Verdict, VerdictCache, verdict_key
from hearth.engine.qemu.engine import QemuEngine
from hearth.host.cgroups import detect
from hearth.model import Accelerator
from hearth.network.machine import MachineNetwork

BOOT = BootFiles(
    kernel=Path("/images/kernel-1/vmlinuz"), initramfs=Path("/i"), rootfs=Path("/r"), rootfs_sha256="0" * 64
)
TCG = Verdict(accelerator=Accelerator.TCG, reason="no sign of init within 10 s")


def test_a_verdict_is_found_again(tmp_path: Path) -> None:
    VerdictCache(tmp_path / "verdicts").save("k", TCG)

    assert VerdictCache(tmp_path / "verdicts").load("k") == TCG
    assert VerdictCache(tmp_path / "verdicts").load("other") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"accelerator": "magic", "reason": ""}', '{"accelerator": 3}'])
def test_a_verdict_that_makes_no_sense_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "accelerator-k.json").write_text(text)

    assert VerdictCache(tmp_path).load("k") is None


def test_another_kernel_or_qemu_wants_a_verdict_of_its_own() -> None:
    other_kernel = replace(BOOT, kernel=Path("/images/kernel-2/vmlinuz"))
    keys = {verdict_key(BOOT, "7.2.22"), verdict_key(BOOT, "10.0.0"), verdict_key(other_kernel, "7.2.22")}

    assert len(keys) == 3
    assert verdict_key(BOOT, "7.2.22") in keys


@pytest.fixture
def open_kvm(tmp_path: Path) -> Iterator[None]:
    """/dev/kvm as on a host that shares it: in this process's own mounts (tests.leaks.isolate), nowhere else."""
    if not KVM_DEVICE.exists():
        pytest.skip("no /dev/kvm on this host")
    node = tmp_path / "kvm"
    os.mknod(node, 0o600 | stat.S_IFCHR, KVM_DEVICE.stat().st_rdev)
    node.chmod(0o666)
    subprocess.run(["mount", "--bind", str(node), str(KVM_DEVICE)], check=True)
    yield
    subprocess.run(["umount", str(KVM_DEVICE)], check=True)


@pytest.mark.root
@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.usefixtures("open_kvm")
async def test_kvm_counts_only_when_a_guest_booted_under_it_and_the_verdict_is_kept(tmp_path: Path) -> None:
    def engine() -> QemuEngine:
        return QemuEngine(verdicts=tmp_path / "v", dialer_for=MachineNetwork("test").dialer, cgroups=detect("test"))

    report = await engine().probe(boot_files())

    booted = report.accelerator is Accelerator.KVM
    assert ("KVM booted" if booted else "cannot run a guest") in report.reason
    (kept,) = (tmp_path / "v").iterdir()
    assert kept.suffix == ".json", "the proof's own files are gone"
    before = kept.stat()
    assert await engine().probe(boot_files()) == report
    after = kept.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns), "it was kept, not proved again"
