"""The working tree on its way into a lab: packed on the host, already compiled, for the guest's processor is slow."""

from __future__ import annotations

import hashlib
import io
import py_compile
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import cache_from_source
from pathlib import Path

from hearth.sdk.client import Sandbox

ROOT = Path(__file__).parents[2]
PRODUCT = ("src",)
TESTS = ("tests", "packaging", "pyproject.toml")
WANTED = (*PRODUCT, *TESTS)
TREE = "/opt/hearth/tree"
UNPACK_S = 120
COMPILED = ROOT / "src"
"""pytest compiles tests itself, in its own way."""


def put(lab: Sandbox, wanted: Sequence[str] = WANTED) -> None:
    """Replace the sources in a lab by those of the working tree, of which ``wanted`` are the names."""
    lab.files.write("/tmp/sources.tar", packed(wanted))
    script = (
        f"mkdir -p {TREE} && cd {TREE} && rm -rf {' '.join(wanted)} && "
        "tar -xf /tmp/sources.tar --no-same-owner && rm /tmp/sources.tar"
    )
    lab.run(["sh", "-c", script], user="root", timeout_sec=UNPACK_S).check()


def packed(wanted: Sequence[str] = WANTED) -> bytes:
    """Give a tar archive of the sources, with the bytecode of the product's."""
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as scratch, tarfile.open(fileobj=buffer, mode="w") as archive:
        for file in files(wanted):
            archive.add(file, arcname=str(file.relative_to(ROOT)), recursive=False)
            if file.suffix == ".py" and file.is_relative_to(COMPILED):
                _add_compiled(archive, file, Path(scratch) / "compiled")
    return buffer.getvalue()


def digest(wanted: Sequence[str]) -> str:
    """Hash names and contents of what goes in."""
    found = hashlib.sha256()
    for file in files(wanted):
        found.update(f"{file.relative_to(ROOT)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()[:16]


def files(wanted: Sequence[str] = WANTED) -> Iterator[Path]:
    """Give every file that goes in."""
    for name in wanted:
        path = ROOT / name
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            is_made = any(part == "__pycache__" or part.endswith(".egg-info") for part in file.parts)
            if file.is_file() and not is_made and not file.is_symlink():
                yield file


def _add_compiled(archive: tarfile.TarFile, file: Path, scratch: Path) -> None:
    # Valid whatever the clocks say: the archive holds the source it was made of.
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    name = file.relative_to(ROOT)
    py_compile.compile(str(file), cfile=str(scratch), dfile=str(name), doraise=True, invalidation_mode=mode)
    archive.add(scratch, arcname=cache_from_source(str(name)))
