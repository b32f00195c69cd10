"""The wheel, installed apart from the sources: it brings everything it reads, and serves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.server.daemon import data_directory, publish_images

from hearth.config import DataDirectory

pytestmark = [pytest.mark.daemon, pytest.mark.slow]
SOURCES = Path(__file__).parents[2]
STEP_S = 120
SHARED = ("grafana/hearth.json", "prometheus/hearth.rules.yml", "systemd/hearth.service")


@dataclass(frozen=True, kw_only=True)
class Installed:
    """A virtual environment with the wheel in it; what hearth depends on comes from the tests' own."""

    root: Path

    def environment(self, data: DataDirectory) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEARTH_", "PYTHON"))}
        return {**kept, "HOME": str(self.root), "HEARTH_DATA": str(data.root), "HEARTH_CONFIG": "/dev/null"}

    def run(self, data: DataDirectory, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.root / "bin/hearth", *words], env=self.environment(data), cwd="/", stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=STEP_S, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def wheel() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([SOURCES / "packaging/wheel", directory], check=True, timeout=STEP_S, capture_output=True)
        (made,) = Path(directory).glob("*.whl")
        yield made


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Iterator[Installed]:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", root], check=True, timeout=STEP_S)
        pip = [
            sys.executable,
            "-m",
            "pip",
            "--python",
            str(root / "bin/python"),
            "install",
            "-q",
            "--no-deps",
            "--no-index",
        ]
        subprocess.run([*pip, str(wheel)], check=True, timeout=STEP_S, capture_output=True)
        (site,) = root.glob("lib/python*/site-packages")
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        yield Installed(root=root)


def test_it_brings_every_file_that_is_read(wheel: Path) -> None:
    inside = {name.partition("/data/")[2] or name for name in zipfile.ZipFile(wheel).namelist()}
    sources = SOURCES / "src"
    wanted = {
        path.relative_to(sources).as_posix()
        for path in (sources / "hearth").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert wanted - inside == set()
    assert {f"share/hearth/{name}" for name in SHARED} - inside == set()
    assert not any(name.startswith("tests/") for name in inside)


def test_it_serves_apart_from_the_sources(installed: Installed) -> None:
    with data_directory() as data:
        publish_images(data)
        where = [str(installed.root / "bin/python"), "-c", "import hearth; print(hearth.__file__)"]
        found = subprocess.run(where, cwd="/", capture_output=True, text=True, check=True, timeout=STEP_S).stdout
        assert found.startswith(str(installed.root))
        assert installed.run(data, "version").stdout.startswith("hearth ")
        assert installed.run(data, "setup", "--check").returncode == 0
        checks = json.loads(installed.run(data, "doctor", "--json").stdout)["checks"]
        assert [each["status"] for each in checks if each["name"] == "configuration"] == ["ok"]
        serve = [str(installed.root / "bin/hearth"), "serve", "--engine", "local"]
        with subprocess.Popen(serve, env=installed.environment(data), cwd="/", stderr=subprocess.DEVNULL) as process:
            try:
                deadline = time.monotonic() + STEP_S
                while not data.api_socket.exists():
                    assert time.monotonic() < deadline, "the daemon does not listen"
                    assert process.poll() is None, "the daemon ended"
                    time.sleep(0.05)
                assert installed.run(data, "create", "web").stdout == "web\n"
                assert installed.run(data, "exec", "web", "echo", "out").stdout == "out\n"
                assert installed.run(data, "destroy", "--yes", "web").returncode == 0
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(STEP_S)
