"""The counter's figure that machines are told stays the same for the daemons of one host."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.engine.qemu.counter import FILE, SAME, steady_tsc_khz
from hearth.host.tsc import tsc_khz

MEASURED = tsc_khz() or 0
pytestmark = pytest.mark.skipif(not MEASURED, reason="this host has no counter to read")


def test_a_measurement_is_kept_for_the_next_daemon(tmp_path: Path) -> None:
    assert steady_tsc_khz(tmp_path / "new") == MEASURED
    assert (tmp_path / "new" / FILE).read_text() == f"{MEASURED}\n"


@pytest.mark.parametrize("share", [-0.9, -0.1, 0.1, 0.9])
def test_a_daemon_that_measures_a_little_more_or_less_goes_by_what_is_kept(tmp_path: Path, share: float) -> None:
    kept = round(MEASURED * (1 + share * SAME))
    (tmp_path / FILE).write_text(f"{kept}\n")

    assert steady_tsc_khz(tmp_path) == kept


@pytest.mark.parametrize("found", ["", "fast", "1000", str(MEASURED * 2)], ids=["none", "no number", "slow", "double"])
def test_another_hosts_figure_and_a_damaged_one_are_replaced(tmp_path: Path, found: str) -> None:
    (tmp_path / FILE).write_text(found)

    assert steady_tsc_khz(tmp_path) == MEASURED
    assert (tmp_path / FILE).read_text() == f"{MEASURED}\n"
