"""What goes into the initramfs and when it is built anew; the real one is built and booted among the slow tests."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest
from tests.image.elves import make_elf

from hearth.errors import HostUnfit
from hearth.image.initramfs import (
    SOURCE_ROOT,
    Interpreter,
    drop_unusable_extensions,
    find_interpreter,
    hash_sources,
    init_script,
    module_names,
    packed_sources,
    shared_libraries,
)
from hearth.image.recipe import agent_recipe, kernel_recipe, rootfs_recipe


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    root = tmp_path / "hearth"
    for name in ("wire", "agent", "sdk"):
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").write_text("")
    (root / "__init__.py").write_text("")
    (root / "version.py").write_text("VERSION = '1'\n")
    (root / "agent" / "init.py").write_text("def main(): ...\n")
    (root / "agent" / "__pycache__").mkdir()
    (root / "agent" / "__pycache__" / "init.cpython-311.pyc").write_bytes(b"stale")
    return root


def change(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_change_of_a_packed_source_changes_the_key_and_nothing_else_does(sources: Path, tmp_path: Path) -> None:
    before = hash_sources(sources)
    change(sources / "sdk/__init__.py", "x = 1\n")
    (sources / "agent/__pycache__/init.cpython-311.pyc").write_bytes(b"other")
    assert hash_sources(sources) == before
    assert hash_sources(Path(shutil.copytree(sources, tmp_path / "elsewhere"))) == before
    seen = {before}
    for name in ("version.py", "__init__.py", "wire/__init__.py", "agent/init.py"):
        change(sources / name, "# changed\n")
        seen.add(hash_sources(sources))
    (sources / "agent/init.py").rename(sources / "agent/first.py")
    seen.add(hash_sources(sources))
    assert len(seen) == 6


def test_only_wire_agent_version_and_the_empty_top_are_packed() -> None:
    packed = {path.relative_to(SOURCE_ROOT).parts[0] for path in packed_sources(SOURCE_ROOT)}
    assert packed == {"__init__.py", "version.py", "wire", "agent"}


def test_modules_are_named_as_they_are_imported() -> None:
    library = Path("/stage/usr/lib/python3.11")
    files = ["hearth/__init__.py", "hearth/agent/__init__.py", "hearth/agent/init.py", "hearth/wire/frames.py"]
    assert module_names(library, [library / file for file in files], ["hearth.agent"]) == [
        "hearth.agent",
        "hearth.agent.init",
    ]


def test_init_is_a_script_the_kernel_can_run(tmp_path: Path) -> None:
    interpreter = Interpreter(root=tmp_path, version="3.11", loader=tmp_path / "ld.so")
    script = init_script(interpreter, agent_recipe()).decode()
    first = script.splitlines()[0]
    assert first.startswith("#!/usr/bin/python3.11 -")
    assert len(first) < 128, "the kernel reads no more of it (BINPRM_BUF_SIZE)"
    assert len(first.split()) == 2, "the kernel passes one argument"
    compile(script, "/init", "exec")


@pytest.fixture
def staged(tmp_path: Path) -> Interpreter:
    libraries = tmp_path / "lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    for name in ("libc.so.6", "libz.so.1.2.13", "ld-linux.so.2"):
        (libraries / name).write_bytes(b"ELF")
    (libraries / "libz.so.1").symlink_to("libz.so.1.2.13")
    (tmp_path / "usr/lib/python3.11/lib-dynload").mkdir(parents=True)
    return Interpreter(root=tmp_path, version="3.11", loader=libraries / "ld-linux.so.2")


def make_extension(*libraries: str) -> bytes:
    names = b"\0" + b"".join(name.encode() + b"\0" for name in libraries)
    dynamic = b"".join(
        (1).to_bytes(8, "little") + names.index(name.encode()).to_bytes(8, "little") for name in libraries
    )
    return make_elf({".dynamic": dynamic + bytes(16), ".dynstr": names})


def test_extension_without_its_library_is_dropped(staged: Interpreter) -> None:
    directory = staged.root / staged.library / "lib-dynload"
    (directory / "_json.so").write_bytes(make_extension("libc.so.6"))
    (directory / "zlib.so").write_bytes(make_extension("libz.so.1", "libc.so.6"))
    (directory / "_ssl.so").write_bytes(make_extension("libssl.so.3", "libc.so.6"))
    drop_unusable_extensions(staged)
    assert sorted(path.name for path in directory.iterdir()) == ["_json.so", "zlib.so"]


def test_libraries_lie_flat_with_the_names_they_are_asked_for_by(staged: Interpreter) -> None:
    directory = staged.root / "lib/x86_64-linux-gnu"
    entries = shared_libraries(staged, [directory / "libz.so.1", directory / "libz.so.1.2.13", staged.loader])
    assert {(entry.path, stat.S_IFMT(entry.mode), entry.data) for entry in entries} == {
        ("usr/lib/x86_64-linux-gnu/libz.so.1.2.13", stat.S_IFREG, b"ELF"),
        ("usr/lib/x86_64-linux-gnu/libz.so.1", stat.S_IFLNK, b"libz.so.1.2.13"),
    }


def test_interpreter_without_its_loader_is_refused(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/python3.11").write_bytes(make_elf({".text": b""}))
    with pytest.raises(HostUnfit, match="loader"):
        find_interpreter(tmp_path, "3.11")


def test_recipes_are_readable_and_mind_what_machines_need() -> None:
    names = kernel_recipe().modules.names
    drivers = [names.index(name) for name in ("virtio_console", "virtio_blk", "virtio_net")]
    assert names.index("virtio_ring") < names.index("virtio") < names.index("virtio_mmio") < min(drivers)
    assert agent_recipe().entry == "hearth.agent.init"
    assert rootfs_recipe().uid == 1000
