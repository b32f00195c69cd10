from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from hearth.host.facts import TOOLS, gather, parse_meminfo, tool_version
from hearth.host.rights import CAPABILITIES, FOR_FULL_MODE, missing_in


def list_below(directory: Path) -> list[Path]:
    return list(directory.rglob("*"))


def network_namespace() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


def test_only_lines_that_count_memory_are_taken() -> None:
    text = "MemTotal:       24684092 kB\nMemAvailable:   2048 kB\nHugePages_Total:       0\n"
    assert parse_meminfo(text) == {"MemTotal": 24105, "MemAvailable": 2}


@pytest.mark.parametrize(
    ("mask", "missing"),
    [
        ("000001ffffffffff", frozenset()),
        ("0000000000000000", frozenset(CAPABILITIES)),
        ("000001ffffffefff", frozenset({"CAP_NET_ADMIN"})),
        ("0000000000200000", frozenset(CAPABILITIES) - {"CAP_SYS_ADMIN"}),
    ],
)
def test_missing_rights_are_named(mask: str, missing: frozenset[str]) -> None:
    assert missing_in(f"Name:\tx\nCapPrm:\t0\nCapEff:\t{mask}\n", FOR_FULL_MODE) == missing


@pytest.mark.parametrize(
    ("tool", "option", "expected"),
    [
        ("setpriv", "--version", "util-linux"),
        ("mke2fs", "-V", "mke2fs"),
        ("hearth-no-such-tool", "--version", None),
        ("false", "--version-unknown", None),
        ("true", "", "version unknown"),
    ],
)
async def test_a_tools_version_is_its_first_line(tool: str, option: str, expected: str | None) -> None:
    version = await tool_version(tool, option)
    assert version == expected if expected in (None, "version unknown") else expected in (version or "")


async def test_this_host_is_described_and_left_as_it_was(tmp_path: Path) -> None:
    facts = await gather(tmp_path / "not" / "yet", "a1b2c3")
    assert list_below(tmp_path) == []
    assert facts.kernel_release == os.uname().release
    assert set(facts.tools) == set(TOOLS)
    assert facts.disk_obstacle is None
    assert abs(facts.disk_free_mib - shutil.disk_usage(tmp_path).free // 1024**2) < 1024
    assert 0 < facts.memory_available_mib <= facts.memory_mib


@pytest.mark.root
async def test_a_directory_that_cannot_be_written_is_an_obstacle() -> None:
    facts = await gather(Path("/proc/hearth"), "a1b2c3")
    assert facts.disk_obstacle is not None
    assert facts.reflink is False


@pytest.mark.root
async def test_root_can_make_namespaces_and_we_stay_where_we_are(tmp_path: Path) -> None:
    ours = network_namespace()
    facts = await gather(tmp_path, "a1b2c3")
    assert facts.namespace_obstacle is None
    assert facts.missing_capabilities == frozenset()
    assert network_namespace() == ours
