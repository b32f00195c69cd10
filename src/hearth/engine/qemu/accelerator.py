"""Which accelerator works here, proved by booting: ``/dev/kvm`` may open, answer every call and still run no guest.

The verdict is cached per host, kernel, QEMU and accelerator; ``hearth doctor`` says what was found.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from hearth.engine.base import BootFiles
from hearth.host.files import write_atomic
from hearth.model import Accelerator

KVM_DEVICE = Path("/dev/kvm")
PROOF_DEADLINE_S = 10.0
"""A working KVM boots to init in about a second; a crawling one is as good as none."""
KNOWN_LINE = "hearth: init"
"""The first line the agent's init prints: the kernel ran, unpacked the initramfs and started Python."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What runs machines here and why, in a sentence for the operator."""

    accelerator: Accelerator
    reason: str


class VerdictCache:
    """Verdicts on disk, one small file each."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @property
    def directory(self) -> Path:
        return self._directory

    def load(self, key: str) -> Verdict | None:
        """Give the cached verdict, or None; a file that makes no sense counts as none."""
        try:
            value = json.loads((self._directory / f"accelerator-{key}.json").read_text())
            return Verdict(accelerator=Accelerator(value["accelerator"]), reason=str(value["reason"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, key: str, verdict: Verdict) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        write_atomic(self._directory / f"accelerator-{key}.json", json.dumps(asdict(verdict)).encode(), mode=0o644)


def verdict_key(boot: BootFiles, qemu_version: str) -> str:
    """Tell what a verdict depends on: this host's kernel and CPU, the guest's kernel, QEMU."""
    parts = [
        platform.release(),
        platform.machine(),
        host_cpu_model(),
        str(boot.kernel),
        qemu_version,
        str(_kvm_identity()),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def kvm_obstacle() -> str | None:
    """Tell what keeps this process from even opening ``/dev/kvm``, or None."""
    if not KVM_DEVICE.exists():
        return "there is no /dev/kvm: enable virtualisation in the firmware, or nested virtualisation on the outer host"
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return "/dev/kvm is not accessible to this user: add the user to the group 'kvm'"
    if os.geteuid() == 0 and not kvm_groups() and not _open_to_all():
        # VMMs never run as root, so what only root may open is of no use to them.
        return "/dev/kvm is open to root alone: give it to a group (chgrp kvm /dev/kvm && chmod 660 /dev/kvm)"
    return None


def kvm_groups() -> list[int]:
    """Give the group that may open ``/dev/kvm``, where that is how it is shared."""
    try:
        status = KVM_DEVICE.stat()
    except OSError:
        return []
    shared = stat.S_IRGRP | stat.S_IWGRP
    return [status.st_gid] if status.st_gid != 0 and status.st_mode & shared == shared else []


def _open_to_all() -> bool:
    open_bits = stat.S_IROTH | stat.S_IWOTH
    return KVM_DEVICE.stat().st_mode & open_bits == open_bits


def _kvm_identity() -> tuple[int, int] | None:
    try:
        status = KVM_DEVICE.stat()
    except OSError:
        return None
    return status.st_rdev, status.st_mode


def host_cpu_model() -> str:
    """Tell the host's CPU as /proc/cpuinfo names it; empty where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("model name")), "")
