"""A small Debian with systemd and hearth's own package in it: built once, the package's part anew for each package."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

PACKAGES = ("ca-certificates", "dbus", "iproute2", "procps", "python3", "systemd", "systemd-sysv", "util-linux")
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
BUILD_S = 280
MASKED = ("getty.target", "console-getty.service", "systemd-logind.service", "systemd-udevd.service",
          "systemd-timesyncd.service", "systemd-networkd.service", "systemd-resolved.service")  # fmt: skip
PACKAGE = "HEARTH_TEST_PACKAGE"


def built_package() -> Path | None:
    """Give the package that ``make service`` has just made; another run spares these tests, which take minutes."""
    named = os.environ.get(PACKAGE)
    return Path(named) if named else None


def base_archive() -> Path:
    """Give the archive of the system without hearth; the first time it is made, which takes a minute or two."""
    cache = Path(os.environ.get("HEARTH_TEST_DATA") or f"/var/tmp/hearth-test-{os.getuid()}") / "service"
    cache.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:12]
    archive = cache / f"base-{key}.tar"
    if not archive.exists():
        fresh = archive.with_suffix(f".{os.getpid()}.tmp.tar")
        try:
            release = subprocess.run(
                ["sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME"], capture_output=True, text=True, check=True
            )
            bootstrap = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
            subprocess.run([*bootstrap, release.stdout.strip(), str(fresh), str(SOURCES)], timeout=BUILD_S, check=True)
            fresh.rename(archive)
        finally:
            fresh.unlink(missing_ok=True)
    return archive


def unpack(tree: Path) -> None:
    """Unpack the base system into an existing directory."""
    subprocess.run(["tar", "-C", tree, "--exclude=./dev/*", "-xf", base_archive()], timeout=BUILD_S, check=True)


def inside(tree: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the tree."""
    return subprocess.run(
        ["chroot", tree, *words], capture_output=True, text=True, timeout=BUILD_S, check=False, stdin=subprocess.DEVNULL
    )
