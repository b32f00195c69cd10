"""Kernel modules: which ones a guest needs and in which order they load.

A kernel package holds no ``modules.dep`` (depmod writes it at installation, which never happens here), so the
dependencies come from where depmod gets them: each module's own ``.modinfo`` section.
"""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

from hearth.errors import HostUnfit
from hearth.image import elf

SUFFIXES = (".ko", ".ko.gz", ".ko.xz", ".ko.zst")


def module_name(path: str) -> str:
    """Give the name the kernel knows a module file by: ``a/virtio-rng.ko.xz`` is ``virtio_rng``."""
    return PurePosixPath(path).name.split(".ko", 1)[0].replace("-", "_")


def find_modules(directory: Path) -> dict[str, Path]:
    """Map module names to files, plain or compressed, anywhere below ``directory``."""
    return {
        module_name(file.name): file
        for file in sorted(directory.rglob("*.ko*"))
        if file.name.endswith(SUFFIXES) and file.is_file()
    }


def built_in(listing: str) -> frozenset[str]:
    """Read ``modules.builtin``: the names of what is part of the kernel itself."""
    return frozenset(module_name(line) for line in listing.split())


def dependencies(module: bytes) -> list[str]:
    """Give the names a (decompressed) module depends on, hard ones and ``softdep`` ``pre:`` ones.

    Raises:
        elf.BadElf: the bytes are no module.
    """
    needed: list[str] = []
    for record in (elf.section(module, ".modinfo") or b"").split(b"\0"):
        key, _, value = record.decode("utf-8", "replace").partition("=")
        if key == "depends":
            needed += [name for name in value.split(",") if name]
        elif key == "softdep" and "pre:" in value:
            needed += value.split("pre:", 1)[1].split("post:", 1)[0].split()
    return [name.replace("-", "_") for name in needed]


def load_order(
    wanted: Iterable[str], depends_on: Callable[[str], list[str]], *, available: Iterable[str], builtin: Iterable[str]
) -> list[str]:
    """Order modules so that each comes after what it depends on; otherwise in the order wanted.

    Args:
        wanted: module names; those built into the kernel are left out.
        depends_on: tells an available module's direct dependencies.
        available: names of the modules that exist as files.
        builtin: names of the modules that are part of the kernel.

    Raises:
        HostUnfit: a module is neither a file nor built in.
    """
    files, inside = frozenset(available), frozenset(builtin)
    order: list[str] = []
    open_names: set[str] = set()

    def visit(name: str, wanted_by: str) -> None:
        if name in inside or name in order or name in open_names:
            return
        if name not in files:
            raise HostUnfit(
                "the kernel lacks a module that guests need",
                details=f"{name} (needed by {wanted_by}) is neither a module nor built in",
                resolution="use a kernel package that has it, or change the kernel recipe",
            )
        open_names.add(name)
        for needed in depends_on(name):
            visit(needed, name)
        order.append(name)

    for name in wanted:
        visit(name, "the recipe")
    return order


DECOMPRESSORS: Mapping[str, Callable[[bytes], bytes]] = {".ko": bytes, ".gz": gzip.decompress, ".xz": lzma.decompress}
"""What the standard library can undo, by the last suffix; zstd takes a tool."""
