"""The bench's own daemon: real, fresh, and gone at the end with all it ran."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hearth.bench.daemon import data_directory, need_images, sandbox, serving
from hearth.bench.row import Skipped
from hearth.bench.samples import SampleFailed
from hearth.host.processes import find_by_arguments


@pytest.fixture
def images() -> None:
    try:
        need_images()
    except Skipped as error:
        pytest.skip(str(error))


def test_a_daemon_answers_when_the_context_is_entered_and_is_gone_after_it() -> None:
    with data_directory() as data:
        with serving(data, "local") as daemon, daemon.client() as client:
            assert client.health().status == "healthy"
            assert find_by_arguments(["--data", str(data.root)])
        assert not find_by_arguments(["--data", str(data.root)])
        with serving(data, "local") as daemon, daemon.client() as client:
            assert client.list() == []
    assert not data.root.exists()


def test_a_daemon_that_does_not_start_is_a_failed_sample_with_its_last_words() -> None:
    with data_directory() as data, pytest.raises(SampleFailed, match="'steam' is none of"), serving(data, "steam"):
        pass


def test_sandboxes_end_with_the_daemon_even_when_the_row_breaks(images: None) -> None:
    roots: list[Path] = []
    with pytest.raises(KeyError), sandbox("local", "case") as (daemon, client, machine):
        roots.append(daemon.data.root)
        assert client.run(machine.id, ["true"]).exit_code == 0
        assert _agents_under(daemon.data.root)
        raise KeyError("defect")
    assert not _agents_under(roots[0])
    assert not roots[0].exists()


def test_images_are_borrowed_and_never_removed(images: None) -> None:
    with data_directory() as data:
        assert data.images.is_symlink()
        lender = data.images.resolve()
    assert (lender / "names").is_dir()


@pytest.mark.root
@pytest.mark.vm
@pytest.mark.slow
def test_the_row_of_real_machines_gives_figures_on_this_host(images: None) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hearth.bench", "--quick", "vm.boot", "--json", "-"],
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    [row] = json.loads(done.stdout)["rows"]
    assert row["verdict"] in ("met", "missed"), row
    assert row["figures"]["failures"] == 0
    assert row["ratio"] > 1, "a whole creation cannot be faster than QEMU alone"


def _agents_under(root: Path) -> list[str]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes()
        except OSError:
            continue
        if b"hearth.agent" in words and os.fsencode(root) in words:
            found.append(directory.name)
    return found
