"""Asking ELF files: made ones, the running interpreter, and every way to be cut short."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tests.image.elves import make_elf

from hearth.image import elf


def test_section_is_found_by_name() -> None:
    data = make_elf({".modinfo": b"a\0b\0", ".text": b"code"})
    assert elf.section(data, ".modinfo") == b"a\0b\0"
    assert elf.section(data, ".text") == b"code"
    assert elf.section(data, ".mod") is None


def test_real_program_names_its_loader_and_its_libraries() -> None:
    program = Path(sys.executable).resolve().read_bytes()
    loader = elf.interpreter(program)
    assert loader is not None
    assert Path(loader).exists()
    assert "libc.so.6" in elf.needed(program)


def test_every_cut_is_an_error_or_finds_nothing() -> None:
    whole = make_elf({".modinfo": b"depends=x\0"})
    for size in range(len(whole)):
        with pytest.raises(elf.BadElf):
            elf.section(whole[:size], ".modinfo")


@pytest.mark.parametrize("data", [b"#!/bin/sh\n" * 20, b"\x7fELF\x01\x01" + bytes(200), bytes(200)])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(elf.BadElf):
        elf.interpreter(data)
