"""The agent image: an initramfs with a CPython of its own, what the agent imports, the kernel's modules and ``/init``.

Any root file system works with it, since nothing of the agent comes from there. The interpreter comes from the
distribution's packages and is asked itself what it needs, so that nothing is packed on a guess.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import hearth
from hearth.errors import HostUnfit
from hearth.host import files, process
from hearth.host.threads import on_own_thread
from hearth.image import cpio, elf
from hearth.image.apt import Apt, Package, fingerprint
from hearth.image.progress import OnProgress, Progress
from hearth.image.recipe import AgentRecipe, agent_recipe
from hearth.image.store import Image, ImageStore, Made, build_key, remove
from hearth.model import ImageKind

NAME = "agent"
INTERPRETER_PACKAGE = re.compile(r"python(\d+\.\d+)-minimal")
GUEST_MODULES = "hearth/modules"
MODULES_LIST = "hearth/modules.list"
DEVICES = {"console": (5, 1), "null": (1, 3)}
"""Nodes needed before anything is mounted: the kernel opens the console for PID 1."""
HASH_SEED = bytes(64)
"""Contents of a plain file /dev/urandom, hidden as soon as devtmpfs is mounted. CPython seeds its string hashes from
there when getrandom(2) is not ready, and reading the real device that early makes the kernel collect timer jitter for
a second (try_to_generate_entropy in drivers/char/random.c). Nobody outside the guest feeds this process's dicts."""
STAGED_SCRIPTS = Path(__file__).parent / "staged"
SOURCE_ROOT = Path(hearth.__file__).parent
PACKED_SOURCES = ("__init__.py", "version.py", "wire", "agent")
IMPORT_TIMEOUT_S = 60.0
COMPRESS_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A CPython extracted below ``root``: ``program`` and ``library`` are relative to it."""

    root: Path
    version: str
    loader: Path

    @property
    def program(self) -> str:
        return f"usr/bin/python{self.version}"

    @property
    def library(self) -> str:
        return f"usr/lib/python{self.version}"

    @property
    def library_directories(self) -> list[Path]:
        """Where the shared libraries are: beside the C library, in both trees of a system before the usr merge."""
        return sorted(
            {path.parent for path in self.root.rglob("*.so.*") if self.root / self.library not in path.parents}
        )

    def command(self, *arguments: str) -> list[str]:
        """Give the command line that runs it in place on the host, with its own loader and libraries only."""
        libraries = ":".join(str(path) for path in self.library_directories)
        program = str(self.root / self.program)
        return [str(self.loader), "--library-path", libraries, program, "-ISB", "-Xutf8", *arguments]


async def build_agent(
    store: ImageStore, apt: Apt, kernel: Image, on_progress: OnProgress, *, source_root: Path = SOURCE_ROOT
) -> Image:
    """Give the initramfs that fits ``kernel``; its primary file is ``initramfs``.

    Args:
        source_root: the directory of the package ``hearth`` whose agent is packed.

    Raises:
        HostUnfit: the interpreter's packages are not what the recipe thinks, or the agent cannot be imported in it.
        Unavailable: a download failed.
    """
    recipe = agent_recipe()
    version, packages = await interpreter_packages(recipe, apt)
    key = build_key(
        ImageKind.AGENT,
        {
            "recipe": hashlib.sha256(repr(recipe).encode()).hexdigest(),
            "packages": fingerprint(packages),
            "kernel": kernel.id,
            "sources": await on_own_thread("hash", lambda: hash_sources(source_root)),
        },
    )

    async def build(staging: Path) -> Made:
        on_progress(Progress(stage=NAME, fraction=0.1, message="downloading the guest's Python"))
        root = staging / "root"
        root.mkdir()
        await apt.unpack(packages, root)
        on_progress(Progress(stage=NAME, fraction=0.5, message="asking it what the agent imports"))
        interpreter = find_interpreter(root, version)
        await on_own_thread("stage", lambda: drop_unusable_extensions(interpreter))
        packed = await on_own_thread("stage", lambda: stage_sources(interpreter, source_root))
        entries = await collect(interpreter, recipe, kernel, packed, staging / "compiled")
        archive = await on_own_thread("pack", lambda: cpio.pack(entries))
        on_progress(Progress(stage=NAME, fraction=0.8, message="compressing"))
        await compress(archive, staging / "initramfs")
        for name in ("root", "compiled"):
            await remove(staging / name)
        return Made(
            primary="initramfs",
            facts={
                "kernel": kernel.id,
                "python": packages[0].version,
                "unpacked_bytes": len(archive),
                "packages": fingerprint(packages),
            },
        )

    image = await store.obtain(ImageKind.AGENT, NAME, key, build, on_progress)
    on_progress(Progress(stage=NAME, fraction=1.0, message=f"{image.id}, {image.size_bytes} bytes"))
    return image


async def interpreter_packages(recipe: AgentRecipe, apt: Apt) -> tuple[str, list[Package]]:
    """Find the packages that hold the distribution's Python, the interpreter first.

    Returns:
        Its version such as ``3.11`` and the packages.
    """
    (meta,) = await apt.show([recipe.metapackage])
    found = next((match for name in meta.depends if (match := INTERPRETER_PACKAGE.fullmatch(name))), None)
    if found is None:
        raise HostUnfit(
            "a package does not depend on what it should",
            details=f"{meta.name} {meta.version} depends on {', '.join(meta.depends)}",
            resolution="change the agent recipe",
        )
    version = found[1]
    python = await apt.show([f"python{version}-minimal", f"libpython{version}-minimal", f"libpython{version}-stdlib"])
    wanted = re.compile("|".join(f"(?:{pattern})" for pattern in recipe.libraries))
    names = {"libgcc-s1", *(name for package in python for name in package.depends)}
    libraries = sorted(name for name in names if wanted.fullmatch(name))
    return version, [*python, *await apt.show(libraries)]


def hash_sources(root: Path) -> str:
    """Hash the names and contents of what is packed of hearth itself."""
    digest = hashlib.sha256()
    for path in packed_sources(root):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(root)}\0{len(data)}\0".encode() + data)
    return digest.hexdigest()


def packed_sources(root: Path) -> list[Path]:
    """List the source files that go into the guest, sorted."""
    named = [root / name for name in PACKED_SOURCES]
    inside = [file for path in named if path.is_dir() for file in path.rglob("*.py")]
    return sorted([*(path for path in named if path.is_file()), *inside])


def find_interpreter(root: Path, version: str) -> Interpreter:
    """Find the extracted interpreter and the loader it asks for.

    Raises:
        HostUnfit: the packages hold no such thing.
    """
    program = (root / f"usr/bin/python{version}").read_bytes()
    asked = elf.interpreter(program)
    name = Path(asked or "none").name
    # The packages' own link may be absolute or belong to a package that is not here: look for the file itself.
    loader = next((path for path in sorted(root.rglob(name)) if path.is_file() and not path.is_symlink()), None)
    if loader is None:
        raise HostUnfit("the guest's Python lacks its loader", details=f"{asked} is in none of the packages")
    return Interpreter(root=root, version=version, loader=loader)


def drop_unusable_extensions(interpreter: Interpreter) -> None:
    """Delete extension modules whose libraries are in none of the packages, such as ``_ssl``.

    Importing one must fail here as it will in the guest, rather than find the library on the host.
    """
    staged = {path.name for directory in interpreter.library_directories for path in directory.iterdir()}
    for path in (interpreter.root / interpreter.library / "lib-dynload").glob("*.so"):
        if not staged.issuperset(elf.needed(path.read_bytes())):
            path.unlink()


async def collect(
    interpreter: Interpreter, recipe: AgentRecipe, kernel: Image, packed: list[Path], compiled: Path
) -> list[cpio.Entry]:
    """Put together everything the initramfs holds; ``packed`` are hearth's own modules as staged."""
    modules, libraries = await import_closure(interpreter, recipe, packed)
    bytecode = await compile_modules(interpreter, {*modules, *packed}, compiled)
    program = (interpreter.root / interpreter.program).read_bytes()
    loader_path = str(elf.interpreter(program)).removeprefix("/")
    return [
        cpio.file("init", init_script(interpreter, recipe), executable=True),
        cpio.file(interpreter.program, program, executable=True),
        cpio.symlink("usr/bin/python3", Path(interpreter.program).name),
        cpio.file(loader_path, interpreter.loader.read_bytes(), executable=True),
        cpio.directory(f"{interpreter.library}/lib-dynload"),
        *(cpio.character_device(f"dev/{name}", *numbers) for name, numbers in DEVICES.items()),
        cpio.file("dev/urandom", HASH_SEED),
        *(cpio.directory(path) for path in ("proc", "sys", "run", "root")),
        cpio.directory("tmp", mode=0o1777),
        *shared_libraries(interpreter, libraries),
        *bytecode,
        *kernel_modules(kernel),
    ]


def shared_libraries(interpreter: Interpreter, libraries: Iterable[Path]) -> list[cpio.Entry]:
    """Put libraries flat into the one directory the loader searches by itself, with the links they are asked for by."""
    home = f"usr/lib/{interpreter.loader.parent.name}"
    entries = {}
    for path in {path.resolve() for path in libraries} - {interpreter.loader.resolve()}:
        entries[path.name] = cpio.file(f"{home}/{path.name}", path.read_bytes())
        for link in path.parent.iterdir():
            if link.is_symlink() and link.resolve() == path:
                entries[link.name] = cpio.symlink(f"{home}/{link.name}", path.name)
    return list(entries.values())


def stage_sources(interpreter: Interpreter, source_root: Path) -> list[Path]:
    """Copy what is packed of hearth beside the staged standard library; gives the copies."""
    target = interpreter.root / interpreter.library / "hearth"
    copies = []
    for source in packed_sources(source_root):
        copy = target / source.relative_to(source_root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        copies.append(copy)
    return copies


def module_names(library: Path, sources: Iterable[Path], packages: Iterable[str]) -> list[str]:
    """Name the modules among ``sources`` that belong to ``packages``, as one imports them."""
    names = []
    for source in sources:
        parts = source.relative_to(library).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if any(name == package or name.startswith(f"{package}.") for package in packages):
            names.append(name)
    return names


async def import_closure(
    interpreter: Interpreter, recipe: AgentRecipe, packed: Iterable[Path]
) -> tuple[list[Path], list[Path]]:
    """Import the agent in the staged interpreter and give the module files and shared libraries that took.

    Raises:
        HostUnfit: the import fails; the details hold the traceback.
    """
    library = interpreter.root / interpreter.library
    names = [recipe.entry, *module_names(library, packed, recipe.packages), *recipe.extra_modules]
    try:
        told = await process.run(
            interpreter.command(str(STAGED_SCRIPTS / "closure.py"), *names), timeout_s=IMPORT_TIMEOUT_S
        )
    except process.CommandFailed as error:
        raise HostUnfit(
            "the agent cannot be imported in the guest's Python",
            details=error.output.strip(),
            resolution="the agent may use only the standard library and hearth.wire",
        ) from error
    modules: list[Path] = []
    libraries: list[Path] = []
    for line in told.stdout.decode().splitlines():
        kind, _, path = line.split("\t")
        (modules if kind == "module" else libraries).append(Path(path))
    if strangers := [str(path) for path in libraries if not path.is_relative_to(interpreter.root)]:
        raise HostUnfit(
            "the guest's Python took libraries from the host",
            details=", ".join(strangers),
            resolution="add their packages to the agent recipe",
        )
    for name in recipe.opened_late:
        libraries += [path for directory in interpreter.library_directories for path in directory.glob(name)]
    # getpath.py takes the directory that holds os.py for the standard library, even where os itself is frozen.
    return [*modules, library / "os.py"], libraries


async def compile_modules(interpreter: Interpreter, modules: Iterable[Path], compiled: Path) -> list[cpio.Entry]:
    """Compile modules to byte code that is loaded without looking for a source; extension modules go in as they are."""
    entries, jobs = [], []
    targets: dict[str, Path] = {}
    for path in sorted(set(modules)):
        inside = path.relative_to(interpreter.root)
        if path.suffix == ".py":
            name = str(inside.with_suffix(".pyc"))
            targets[name] = compiled / name
            jobs.append(f"{path}\t{targets[name]}\t/{inside}")
        else:
            entries.append(cpio.file(str(inside), path.read_bytes()))
    await process.run(
        interpreter.command(str(STAGED_SCRIPTS / "bytecode.py")),
        timeout_s=IMPORT_TIMEOUT_S,
        stdin="\n".join(jobs).encode(),
    )
    return [*entries, *(cpio.file(name, path.read_bytes()) for name, path in targets.items())]


def init_script(interpreter: Interpreter, recipe: AgentRecipe) -> bytes:
    """Give ``/init``. The kernel runs scripts, so the interpreter's options need no place on its command line.

    Nothing of what is imported is garbage, so it is not looked for meanwhile; ``main`` switches that on again.
    """
    lines = [
        f"#!/{interpreter.program} {recipe.options}",
        "import gc",
        "gc.disable()",
        f"from {recipe.entry} import main",
        "main()",
        "",
    ]
    return "\n".join(lines).encode()


def kernel_modules(kernel: Image) -> list[cpio.Entry]:
    """Give the kernel's modules and the list of their paths in load order, one a line."""
    names = [Path(name).name for name in kernel.facts["modules"]]
    paths = [f"{GUEST_MODULES}/{name}" for name in names]
    listing = "".join(f"/{path}\n" for path in paths).encode()
    contents = [(kernel.directory / name).read_bytes() for name in kernel.facts["modules"]]
    return [
        cpio.file(MODULES_LIST, listing),
        *(cpio.file(path, data) for path, data in zip(paths, contents, strict=True)),
    ]


async def compress(archive: bytes, target: Path) -> None:
    """Write the archive in the kernel's "legacy" lz4 format.

    Measured under TCG with 13 MB: to /init 2.68 s with lz4 (6.0 MB), 2.81 s with zstd -19 (4.2 MB), 2.79 s plain; the
    packing takes 0.7 s instead of 6. Every kernel of Debian and Ubuntu unpacks it.

    Raises:
        HostUnfit: the tool is not installed.
    """
    packed = await process.run(["lz4", "-l", "-9", "-q", "-c"], timeout_s=COMPRESS_TIMEOUT_S, stdin=archive)
    await on_own_thread("write", lambda: files.write_atomic(target, packed.stdout))
