"""The logs that VMMs write into: bounded, and no link in a VMM's own directory is followed."""

from __future__ import annotations

import os
from pathlib import Path

from hearth.engine.qemu.handover import LOG_MAX_BYTES, VMM_LOG, log_file, read_log, trim_logs


def test_an_overgrown_log_is_emptied_and_written_on(tmp_path: Path) -> None:
    noisy, quiet, bare = (tmp_path / name for name in ("noisy", "quiet", "bare"))
    for directory in (noisy, quiet, bare):
        directory.mkdir()
    with log_file(noisy) as flooded, log_file(quiet) as calm:
        os.write(flooded, b"x" * (LOG_MAX_BYTES + 1))
        os.write(calm, b"hello")

        assert trim_logs(tmp_path) == ["noisy"]

        os.write(flooded, b"last words")
    assert read_log(noisy) == "last words"
    assert read_log(quiet) == "hello"
    assert (noisy / VMM_LOG).stat().st_size == len("last words")


def test_links_and_pipes_in_the_place_of_a_log_are_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"x" * (LOG_MAX_BYTES + 1))
    machines = tmp_path / "machines"
    for name in ("link", "pipe"):
        (machines / name).mkdir(parents=True)
    (machines / "link" / VMM_LOG).symlink_to(precious)
    os.mkfifo(machines / "pipe" / VMM_LOG)

    assert trim_logs(machines) == []
    assert precious.stat().st_size == LOG_MAX_BYTES + 1
