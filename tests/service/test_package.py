"""The Debian package: what an installation makes, what a removal leaves, what a purge takes; in a root of its own."""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.service.debian import built_package, inside, unpack

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def tree() -> Iterator[Path]:
    package = built_package()
    if package is None:
        pytest.skip("there is no package: run 'make service'")
    root = Path(tempfile.mkdtemp(prefix="hearth-deb-"))
    try:
        unpack(root)
        shutil.copy(package, root / "root/hearth.deb")
        yield root
    finally:
        shutil.rmtree(root)


def test_it_is_installed_used_upgraded_removed_and_purged(tree: Path) -> None:
    installed = inside(tree, "dpkg", "-i", "/root/hearth.deb")
    assert installed.returncode == 0, installed.stderr
    assert "hearth setup" in installed.stderr

    assert inside(tree, "hearth", "version").stdout.startswith("hearth ")
    checked = inside(tree, "hearth", "config", "check", "/etc/hearth/hearth.toml")
    assert (checked.returncode, checked.stderr) == (0, "")
    looked = inside(tree, "hearth", "setup", "--check")
    assert (looked.returncode, looked.stderr.count("is missing")) == (1, 3)
    units = [f"hearth{name}" for name in (".service", "-machines.service", "-shutdown.service", ".slice")]
    verified = inside(tree, "systemd-analyze", "verify", *(f"/usr/lib/systemd/system/{unit}" for unit in units))
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")
    assert stat.S_IMODE((tree / "var/lib/hearth").stat().st_mode) == 0o700
    for name in ("grafana/hearth.json", "prometheus/hearth.rules.yml"):
        assert (tree / "usr/share/hearth" / name).is_file()

    volume = tree / "var/lib/hearth/volumes/precious"
    volume.parent.mkdir()
    volume.write_text("a volume")
    (tree / "etc/hearth/hearth.toml").write_text("pool = 3\n")
    upgraded = inside(tree, "dpkg", "-i", "--force-confdef", "/root/hearth.deb")
    assert (upgraded.returncode, volume.exists()) == (0, True)

    removed = inside(tree, "dpkg", "-r", "hearth")
    assert removed.returncode == 0, removed.stderr
    assert not (tree / "usr/lib/hearth").exists(), "what was left was made after the installation"
    assert volume.exists()
    assert (tree / "etc/hearth/hearth.toml").read_text() == "pool = 3\n"

    purged = inside(tree, "dpkg", "-P", "hearth")
    assert purged.returncode == 0, purged.stderr
    left = [path for path in tree.rglob("*hearth*") if not path.is_relative_to(tree / "proc") and path.suffix != ".deb"]
    assert [path for path in left if "dpkg" not in path.parts] == []
