"""Disks as somebody else's tools make them: file systems by mke2fs, tables by sfdisk, qcow2 by qemu-img."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

MIB = 1 << 20
PROGRAMS = ("sh", "cat", "sha256sum", "mkdir", "head", "id", "ls", "dd", "sync")
LINUX = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
ROOT_X86_64 = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"
ESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"


def run(*words: str | Path, text: str | None = None) -> str:
    """Run a tool to its end and give what it printed."""
    done = subprocess.run(
        [str(word) for word in words], input=text, check=False, capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def tree_of_programs(root: Path, files: Mapping[str, str]) -> Path:
    """Fill a directory with some of this host's programs, what they are linked with, and files."""
    for name in PROGRAMS:
        program = Path(shutil.which(name) or name).resolve()
        libraries = {word for word in run("ldd", program).split() if word.startswith("/")}
        put(root / "bin" / name, program)
        for library in libraries:
            put(root / library.lstrip("/"), Path(library).resolve())
    for directory in ("proc", "sys", "dev", "run", "tmp", "root"):
        (root / directory).mkdir()
    for name, content in {"etc/passwd": "root:x:0:0::/root:/bin/sh\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def put(target: Path, source: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def ext4(path: Path, size_mib: int, tree: Path | None = None, label: str = "") -> Path:
    """Make a file with an ext4 that holds a tree."""
    content: list[str | Path] = [] if tree is None else ["-d", tree]
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
    run("mke2fs", "-q", "-F", "-t", "ext4", "-L", label, *content, path)
    return path


def disk(path: Path, size_mib: int, partitions: Sequence[tuple[str, Path | int]], label: str = "gpt") -> Path:
    """Make a raw disk with a table, partitions from 1 MiB on: each a type and its content, or its size in MiB."""
    with path.open("wb") as file:
        file.truncate(size_mib * MIB)
    lines, start_mib, contents = [f"label: {label}"], 1, []
    for kind, content in partitions:
        mib = content if isinstance(content, int) else content.stat().st_size // MIB
        lines.append(f"start={start_mib}MiB, size={mib}MiB, type={kind}")
        contents.append((start_mib, content))
        start_mib += mib
    run("sfdisk", "-q", path, text="\n".join(lines))
    for at_mib, content in contents:
        if isinstance(content, Path):
            run("dd", f"if={content}", f"of={path}", "bs=1M", f"seek={at_mib}", "conv=notrunc,sparse", "status=none")
    return path


def qcow2(source: Path, *, compressed: bool = False) -> Path:
    """Make a qcow2 of a raw disk, beside it."""
    target = source.with_suffix(".qcow2")
    run("qemu-img", "convert", *(["-c"] if compressed else []), "-f", "raw", "-O", "qcow2", source, target)
    return target
