"""From the volumes a user asks for to what the guest is told to mount: pure."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from hearth.bounds import MAX_MOUNT_PATH_BYTES
from hearth.errors import InvalidInput
from hearth.model import check_range
from hearth.volume.base import AttachMode, FileSystem
from hearth.volume.names import check_volume_name
from hearth.wire.messages import VolumeMount

MAX_COMPONENT_BYTES = 255
"""NAME_MAX of Linux."""
KERNEL_TREES = ("/proc", "/sys", "/dev")
"""File systems of the kernel's own: nothing may be mounted on or in them."""
NEEDED_TREES = ("/bin", "/boot", "/etc", "/lib", "/lib32", "/lib64", "/run", "/sbin", "/usr")
"""What a mount would hide whole, and a guest cannot do without; below them a volume is fine."""


@dataclass(frozen=True, kw_only=True)
class VolumeRequest:
    """A volume a user wants in a sandbox: ``mount`` is an absolute path in the guest."""

    name: str
    mount: str
    read_only: bool = False

    @property
    def mode(self) -> AttachMode:
        return AttachMode.READ_ONLY if self.read_only else AttachMode.READ_WRITE


def check_requests(requests: Sequence[VolumeRequest], *, writable_max: int, read_only_max: int) -> None:
    """Refuse what cannot be mounted together.

    Args:
        writable_max, read_only_max: how many of each kind a machine has room for.

    Raises:
        InvalidInput: names the field, such as ``volumes[1].mount``.
    """
    read_only = sum(request.read_only for request in requests)
    check_range(len(requests) - read_only, 0, writable_max, what="volumes", unit="writable ones")
    check_range(read_only, 0, read_only_max, what="volumes", unit="read-only ones")
    for index, request in enumerate(requests):
        check_volume_name(request.name, what=f"volumes[{index}].name")
        check_mount_path(request.mount, what=f"volumes[{index}].mount")
        for earlier in requests[:index]:
            _check_apart(index, request, earlier)


def check_mount_path(path: str, *, what: str = "mount") -> str:
    """Return ``path`` when a volume may be mounted there.

    Raises:
        InvalidInput: it may not; the error names the field ``what``.
    """
    problem = _problem(path)
    if problem is None:
        return path
    raise InvalidInput(
        f"invalid {what}",
        details=f"{what} {path[:80]!r} {problem}",
        resolution="use an absolute path of its own, such as /data",
        field=what,
    )


def plan_mounts(requests: Sequence[VolumeRequest], devices: Sequence[str]) -> list[VolumeMount]:
    """Give what the guest is to mount, parents before what could lie in them.

    Args:
        devices: the guest's device of each request, in the order of the requests.
    """
    mounts = [
        VolumeMount(device=device, mount=request.mount, fs=FileSystem.EXT4.value, read_only=request.read_only)
        for request, device in zip(requests, devices, strict=True)
    ]
    return sorted(mounts, key=lambda mount: mount.mount)


def _problem(path: str) -> str | None:
    if not path.startswith("/"):
        return "is not absolute"
    if not path.isprintable():
        return "has characters that cannot be printed"
    if len(path.encode()) > MAX_MOUNT_PATH_BYTES or any(
        len(part.encode()) > MAX_COMPONENT_BYTES for part in path.split("/")
    ):
        return "is too long"
    if path != posixpath.normpath(path) or path.startswith("//"):
        return "is not in its shortest form (no '..', '.', '//' and no '/' at the end)"
    if path == "/":
        return "is the root file system"
    if any(is_within(path, tree) for tree in KERNEL_TREES):
        return f"lies in one of {', '.join(KERNEL_TREES)}, which are the kernel's"
    if path in NEEDED_TREES:
        return "would hide files the sandbox needs"
    return None


def _check_apart(index: int, request: VolumeRequest, earlier: VolumeRequest) -> None:
    if request.name == earlier.name:
        field, problem = "name", "is asked for twice"
    elif is_within(request.mount, earlier.mount) or is_within(earlier.mount, request.mount):
        field, problem = "mount", f"and {earlier.mount!r} lie one in the other"
    else:
        return
    value = request.name if field == "name" else request.mount
    what = f"volumes[{index}].{field}"
    raise InvalidInput(
        f"invalid {what}",
        details=f"{what} {value!r} {problem}",
        resolution="ask for each volume once, each at a place of its own",
        field=what,
    )


def is_within(path: str, tree: str) -> bool:
    """Tell whether ``path`` is ``tree`` or lies below it; both absolute and in their shortest form."""
    return path == tree or path.startswith(f"{tree}/")
