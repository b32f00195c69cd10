"""Verdicts are kept on disk and forgotten when what they depend on changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hearth.engine.base import BootFiles
from hearth.engine.qemu.accelerator import Verdict, VerdictCache, verdict_key
from hearth.model import Accelerator

BOOT = BootFiles(kernel=Path("/images/kernel-1/vmlinuz"), initramfs=Path("/i"), rootfs=Path("/r"))
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
