"""Which installed Python distributions the lab needs, and the way of their files into its tree."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement

TESTING = (
    *("pytest", "pytest-asyncio", "pytest-benchmark", "pytest-timeout", "pytest-xdist", "hypothesis"),
    *("openapi-spec-validator", "jsonschema-rs", "oslo.utils"),
)
OURS = "hearth"
COMPILE_S = 280


def needed() -> list[Distribution]:
    """Give what hearth and its tests import, by name, without hearth itself."""
    found: dict[str, Distribution] = {}
    waiting = [(OURS, frozenset[str]()), *((name, frozenset[str]()) for name in TESTING)]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        installed = distribution(name)
        found[installed.name.lower()] = installed
        for line in installed.requires or ():
            requirement = Requirement(line)
            if not _applies(requirement, extras):
                continue
            if (wanted := (requirement.name, frozenset(requirement.extras))) not in seen:
                seen.add(wanted)
                waiting.append(wanted)
    del found[OURS]
    return [found[name] for name in sorted(found)]


def versions(distributions: Iterable[Distribution]) -> list[str]:
    """Give what a build key needs of them; compiled ones are of this interpreter's version."""
    python = f"python {sys.version_info.major}.{sys.version_info.minor}"
    return [python, *(f"{each.name} {each.version}" for each in distributions)]


def copy(distributions: Iterable[Distribution], target: Path) -> None:
    """Copy their files below a directory that is then a place to import from; programs and caches stay behind."""
    for each in distributions:
        for file in each.files or ():
            path = PurePosixPath(file)
            if path.parts[0] == ".." or path.suffix == ".pyc":
                continue
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(each.locate_file(file)), target / path)


def compile_all(target: Path) -> None:
    """Compile what is there, valid whatever the clocks say: a lab's processor is emulated and slow."""
    words = [sys.executable, "-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "unchecked-hash"]
    # Some packages carry files for other versions of Python, which do not compile here.
    subprocess.run([*words, "-s", str(target), str(target)], check=False, timeout=COMPILE_S, capture_output=True)


def _applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({"extra": extra}) for extra in (*extras, ""))
