"""What the tool that reads hostile disk files may do, as root's and as an ordinary user's."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import pytest
from tests.unprivileged import ordinary_user

from hearth.engine.qemu.block_tool import OPEN_FILES_MAX, DiskFile, block_tool, node
from hearth.engine.qemu.overlay import create_overlay
from hearth.engine.qemu.vmm_user import COUNT, FIRST
from hearth.errors import EngineFailed, NoSpace
from hearth.host import process

MIB = 1 << 20
DISK_BYTES = 8 * MIB
KINDS = ("net", "ipc", "uts")


def raw(path: Path, content: bytes = b"") -> DiskFile:
    path.write_bytes(content.ljust(DISK_BYTES, b"\0"))
    path.chmod(0o600)
    return DiskFile(path=path, format="raw")


def facts(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.root
async def test_the_tool_is_nobody_has_no_network_and_opens_nothing_but_what_it_was_given(tmp_path: Path) -> None:
    files = [raw(tmp_path / "base")]
    create_overlay(tmp_path / "top", DISK_BYTES)
    files.append(DiskFile(path=tmp_path / "top", format="qcow2", is_writable=True))
    async with block_tool(files, file_max_bytes=DISK_BYTES) as tool:
        found = facts(tool.pid)
        user = int(found["Uid"].split()[0])
        assert FIRST <= user < FIRST + COUNT
        assert set(found["Uid"].split()) == set(found["Gid"].split()) == {str(user)}
        assert found["Groups"] == ""
        assert {found[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
        assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
        assert not {namespace(tool.pid, kind) for kind in KINDS} & {namespace(os.getpid(), kind) for kind in KINDS}
        limits = {line[:26].strip(): line[26:].split()[1] for line in limits_of(tool.pid)}
        assert limits["Max file size"] == str(DISK_BYTES)
        assert limits["Max open files"] == str(OPEN_FILES_MAX)
        assert limits["Max core file size"] == "0"
        opened = links(Path(f"/proc/{tool.pid}/fd"))
        assert {path for path in opened if path.is_relative_to(tmp_path)} == {tmp_path / "base", tmp_path / "top"}


def namespace(pid: int, kind: str) -> Path:
    return Path(f"/proc/{pid}/ns/{kind}").readlink()


def links(directory: Path) -> set[Path]:
    return {path.readlink() for path in directory.iterdir()}


def limits_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/limits").read_text().splitlines()[1:]


async def copy(source: DiskFile, target: Path, *, file_max_bytes: int = DISK_BYTES) -> None:
    files = [source, DiskFile(path=target, format="raw", is_writable=True)]
    async with block_tool(files, file_max_bytes=file_max_bytes) as tool:
        await tool.job("blockdev-mirror", {"device": node(0), "target": node(1), "sync": "full"})


async def test_what_grows_beyond_its_bound_is_an_error(tmp_path: Path) -> None:
    source = raw(tmp_path / "base", random.Random(1).randbytes(4 * MIB))
    (tmp_path / "copy").write_bytes(b"")
    os.truncate(tmp_path / "copy", DISK_BYTES)
    with pytest.raises(EngineFailed, match="the layers of a disk could not be put together"):
        await copy(source, tmp_path / "copy", file_max_bytes=MIB)


@pytest.mark.root
async def test_a_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    source = raw(tmp_path / "base", random.Random(1).randbytes(4 * MIB))
    small = tmp_path / "small"
    small.mkdir()
    await process.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], timeout_s=30)
    try:
        (small / "copy").write_bytes(b"")
        os.truncate(small / "copy", DISK_BYTES)
        with pytest.raises(NoSpace, match="the disk is full"):
            await copy(source, small / "copy")
    finally:
        await process.run(["umount", str(small)], timeout_s=30)


async def test_a_file_that_cannot_be_used_is_told_in_the_tools_words(tmp_path: Path) -> None:
    garbage = DiskFile(path=raw(tmp_path / "base").path, format="qcow2")
    with pytest.raises(EngineFailed, match="Image is not in qcow2 format"):
        async with block_tool([raw(tmp_path / "other"), garbage], file_max_bytes=MIB):
            pytest.fail("it started on garbage")


SCRIPT = """
import asyncio, os, sys
from pathlib import Path
from hearth.engine.qemu.block_tool import DiskFile, block_tool, node

async def main() -> None:
    files = [DiskFile(path=Path(sys.argv[1]), format="raw"),
             DiskFile(path=Path(sys.argv[2]), format="raw", is_writable=True)]
    async with block_tool(files, file_max_bytes=1 << 30) as tool:
        for kind in ("net", "user", "mnt", "pid"):
            assert os.readlink(f"/proc/{tool.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}"), kind
        await tool.job("blockdev-mirror", {"device": node(0), "target": node(1), "sync": "full"})

asyncio.run(main())
"""


@pytest.mark.root
def test_an_ordinary_users_tool_is_enclosed() -> None:
    user = ordinary_user()
    with tempfile.TemporaryDirectory(prefix="hearth-tool-", dir="/tmp") as directory:
        home = Path(directory)
        source = raw(home / "source", random.Random(2).randbytes(MIB))
        target = raw(home / "target")
        for path in (home, source.path, target.path):
            os.chown(path, user.uid, user.uid)
        done = user.run(home, "-c", SCRIPT, str(source.path), str(target.path))
        assert done.returncode == 0, done.stderr.decode()
        assert target.path.read_bytes() == source.path.read_bytes()
    assert list(user.processes()) == []
