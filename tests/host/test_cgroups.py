from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearth.errors import Conflict, HostUnfit, InvalidInput
from hearth.host.cgroups import Cgroups, Layout, Mount, detect, detect_v2, limits, own_path, parse_mounts

MIB = 1024 * 1024

HYBRID = """\
31 30 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:28 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
36 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
41 31 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = (
    "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
)


def test_the_control_group_mounts_are_found_among_others() -> None:
    assert [(str(mount.point), mount.kind) for mount in parse_mounts(HYBRID)] == [
        ("/sys/fs/cgroup/cpu", "cgroup"),
        ("/sys/fs/cgroup/memory", "cgroup"),
        ("/sys/fs/cgroup/unified", "cgroup2"),
    ]
    assert parse_mounts(HYBRID)[0].options >= {"cpu", "cpuacct"}
    assert parse_mounts(UNIFIED) == [
        Mount(
            point=Path("/sys/fs/cgroup"),
            kind="cgroup2",
            options=frozenset({"rw", "nsdelegate", "memory_recursiveprot"}),
        )
    ]
    assert parse_mounts("") == []


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/system.slice/hearth.service\n", "/system.slice/hearth.service"),
        ("5:memory:/a\n1:cpu:/b\n0::/\n", "/"),
        ("5:memory:/a\n", "/"),
    ],
)
def test_our_own_group_is_told(text: str, path: str) -> None:
    assert own_path(text) == path


@pytest.mark.parametrize(
    ("version", "weight", "expected"),
    [
        (2, 100, {"cpu": "cpu.weight=100", "memory": "memory.max=67108864", "pids": "pids.max=70"}),
        (1, 100, {"cpu": "cpu.shares=1024", "memory": "memory.limit_in_bytes=67108864", "pids": "pids.max=70"}),
        (1, 50, {"cpu": "cpu.shares=512", "memory": "memory.limit_in_bytes=67108864", "pids": "pids.max=70"}),
    ],
)
def test_limits_are_spelled_as_each_version_wants_them(version: int, weight: int, expected: dict[str, str]) -> None:
    values = limits(version, 64 * MIB, 70, weight)
    assert {name: f"{file}={value}" for name, (file, value) in values.items()} == expected


def test_a_host_without_control_groups_gives_none_and_nothing_fails() -> None:
    groups = Cgroups("a1b2c3", Layout(version=0, bases={}, reason="none are mounted"))
    assert groups.create("sb-1", memory_max_bytes=64 * MIB, pids_max=70) is None
    groups.remove("sb-1")
    assert groups.list() == set()


DELEGATED = "system.slice/hearth.service"
V2_TREES = [
    ("the host's top", "cpu memory pids io", "/user.slice", "", "cpu memory pids", False),
    ("our own group when it is delegated", "memory pids", f"/{DELEGATED}", DELEGATED, "memory pids", True),
    (
        "our own group once we stepped aside",
        "cpu memory pids",
        f"/{DELEGATED}/daemon",
        DELEGATED,
        "cpu memory pids",
        False,
    ),
    ("nothing where memory is not to be had", "cpu pids", "/", None, "", False),
    ("nothing on a hybrid host", "", "/", None, "", False),
]


@pytest.mark.parametrize(("what", "controllers", "own", "base", "handed_down", "moved"), V2_TREES)
def test_version_2_groups_go_below(
    what: str, controllers: str, own: str, base: str | None, handed_down: str, moved: bool, tmp_path: Path
) -> None:
    """The files of cgroup-v2.rst, as plain files: which are read and written, not what a kernel makes of it."""
    for directory in (tmp_path, tmp_path / DELEGATED, tmp_path / DELEGATED / "daemon"):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "cgroup.controllers").write_text(controllers)
    try:
        os.setxattr(tmp_path / DELEGATED, "user.delegate", b"1")
    except OSError as error:
        pytest.skip(f"the temporary directory's file system has no user attributes: {error}")
    layout = detect_v2([Mount(point=tmp_path, kind="cgroup2", options=frozenset())], own)
    if base is None:
        assert layout is None, what
        return
    assert layout is not None, what
    assert layout.version == 2
    assert dict(layout.bases) == dict.fromkeys(handed_down.split(), tmp_path / base)
    written = (tmp_path / base / "cgroup.subtree_control").read_text()
    assert written == " ".join(f"+{name}" for name in handed_down.split())
    assert (tmp_path / DELEGATED / "daemon" / "cgroup.procs").exists() is moved


HOME = "hearth.slice/hearth-machines.service"


def test_machines_go_where_the_operator_said_and_what_keeps_that_group_alive_steps_aside(tmp_path: Path) -> None:
    """As above: plain files."""
    mounts = [Mount(point=tmp_path, kind="cgroup2", options=frozenset())]
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids io")
    with pytest.raises(HostUnfit, match="hearth-machines") as caught:
        detect_v2(mounts, "/system.slice/hearth.service", HOME)
    assert caught.value.field == "machines_cgroup"
    base = tmp_path / HOME
    base.mkdir(parents=True)
    (base / "cgroup.controllers").write_text("cpu memory pids")
    (base / "cgroup.procs").write_text("4711\n")
    layout = detect_v2(mounts, "/system.slice/hearth.service", HOME)
    assert layout is not None
    assert set(layout.bases.values()) == {base}
    assert (base / "keeper/cgroup.procs").read_text() == "4711"
    assert (base / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"


@pytest.mark.parametrize("home", ["../../etc", "/", ""])
def test_a_group_outside_the_hierarchy_is_refused(home: str, tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids")
    with pytest.raises(HostUnfit):
        detect_v2([Mount(point=tmp_path, kind="cgroup2", options=frozenset())], "/", home)


def test_a_host_without_version_2_does_without_the_named_group(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("")
    assert detect_v2([Mount(point=tmp_path, kind="cgroup2", options=frozenset())], "/", HOME) is None


@pytest.fixture
def groups() -> Iterator[Cgroups]:
    if os.geteuid() != 0:
        pytest.skip("needs root: run it with sudo")
    found = detect(secrets.token_hex(3))
    if found.layout.version == 0:
        pytest.skip(f"no control groups here: {found.layout.reason}")
    yield found
    for name in found.list():
        found.remove(name)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


@pytest.mark.root
def test_limits_are_what_the_kernel_reads_back(groups: Cgroups) -> None:
    group = groups.create("sb-1", memory_max_bytes=64 * MIB, pids_max=70, cpu_weight=200)
    assert group is not None
    values = limits(groups.layout.version, 64 * MIB, 70, 200)
    directories = dict(zip(groups.layout.bases, group.directories * 3, strict=False))
    for controller, directory in directories.items():
        file, value = values[controller]
        assert (directory / file).read_text().strip() == value


@pytest.mark.root
def test_a_process_is_moved_in_and_holds_the_group_until_it_ends(
    groups: Cgroups, sleeper: subprocess.Popen[bytes]
) -> None:
    group = groups.create("sb-1", memory_max_bytes=64 * MIB, pids_max=70)
    assert group is not None
    group.add(sleeper.pid)
    for directory in group.directories:
        assert (directory / "cgroup.procs").read_text().split() == [str(sleeper.pid)]
    with pytest.raises(Conflict, match="still has processes"):
        groups.remove("sb-1")
    sleeper.kill()
    sleeper.wait()
    groups.remove("sb-1")
    assert groups.list() == set()


@pytest.mark.root
def test_adding_a_process_that_has_ended_is_fine(groups: Cgroups) -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    group = groups.create("sb-1", memory_max_bytes=64 * MIB, pids_max=70)
    assert group is not None
    group.add(process.pid)


@pytest.mark.root
def test_the_memory_limit_ends_a_process_that_would_take_more(groups: Cgroups) -> None:
    if "memory" not in groups.layout.bases:
        pytest.skip("this host's control groups do not bound memory")
    group = groups.create("sb-1", memory_max_bytes=32 * MIB, pids_max=70)
    assert group is not None
    script = "read go; exec python3 -c 'bytearray(256 * 1024 * 1024)'"
    with subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        group.add(process.pid)
        process.communicate(b"go\n", timeout=30)
    assert process.returncode == -9


@pytest.mark.root
def test_a_fresh_process_finds_groups_by_name_and_removing_twice_is_fine(groups: Cgroups) -> None:
    made = [groups.create(name, memory_max_bytes=64 * MIB, pids_max=70) for name in ("sb-1", "sb-2")]
    fresh = detect(groups.tag)
    assert fresh.list() == {"sb-1", "sb-2"}
    fresh.remove("sb-1")
    fresh.remove("sb-1")
    assert groups.list() == {"sb-2"}
    fresh.remove("sb-2")
    left = [directory.parent for group in made if group for directory in group.directories if directory.parent.exists()]
    assert left == []


@pytest.mark.root
def test_daemons_do_not_see_each_others_groups(groups: Cgroups) -> None:
    groups.create("sb-1", memory_max_bytes=64 * MIB, pids_max=70)
    other = detect(secrets.token_hex(3))
    assert other.list() == set()
    other.remove("sb-1")
    assert groups.list() == {"sb-1"}


@pytest.mark.root
def test_a_limit_the_kernel_refuses_leaves_no_group(groups: Cgroups) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        groups.create("sb-1", memory_max_bytes=64 * MIB, pids_max=-5)
    assert groups.list() == set()


@pytest.mark.root
@pytest.mark.parametrize("name", ["..", "a/b", ""])
def test_a_name_that_leads_elsewhere_is_refused(name: str, groups: Cgroups) -> None:
    with pytest.raises(InvalidInput):
        groups.create(name, memory_max_bytes=64 * MIB, pids_max=70)
    with pytest.raises(InvalidInput):
        groups.remove(name)
