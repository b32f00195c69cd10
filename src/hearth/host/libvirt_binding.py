"""The libvirt binding: found where it is, loaded once, and said what of it is used.

It is no package of ours: compiled against one interpreter, it comes with the distribution (``python3-libvirt``), whose
modules a virtual environment does not see. There they are loaded by their files, and nothing else from beside them.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

from hearth.errors import HostUnfit

PLACES = (Path("/usr/lib/python3/dist-packages"),)
"""Where distributions put it; other Python packages there are none of our business."""
MODULE, COMPILED = "libvirt", "libvirtmod"
INSTALL = (
    "install it with 'apt-get install python3-libvirt', or with 'pip install libvirt-python' into hearth's environment"
)

XML_INACTIVE = 2
UPLOAD_SPARSE = 1
"""VIR_DOMAIN_XML_INACTIVE, VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM"""
NO_DOMAIN, NO_POOL, NO_VOLUME, VOLUME_EXISTS = 42, 49, 50, 90
"""virErrorNumber (libvirt/virterror.h): what the server says is not there, or is."""


class Stream(Protocol):
    """virStream: bytes on their way to a volume."""

    def send(self, data: bytes, /) -> int: ...
    def sendHole(self, length: int, /) -> int: ...
    def finish(self) -> int: ...
    def abort(self) -> int: ...


class StorageVolume(Protocol):
    """virStorageVol. ``info`` gives kind, capacity and allocation in bytes."""

    def name(self) -> str: ...
    def key(self) -> str: ...
    def path(self) -> str: ...
    def info(self) -> Sequence[int]: ...
    def XMLDesc(self, flags: int = 0) -> str: ...
    def upload(self, stream: Stream, offset: int, length: int, flags: int = 0) -> int: ...
    def resize(self, capacity: int, flags: int = 0) -> int: ...
    def delete(self, flags: int = 0) -> int: ...
    def wipe(self, flags: int = 0) -> int: ...


class StoragePool(Protocol):
    """virStoragePool."""

    def name(self) -> str: ...
    def isActive(self) -> int: ...
    def XMLDesc(self, flags: int = 0) -> str: ...
    def refresh(self, flags: int = 0) -> int: ...
    def listAllVolumes(self, flags: int = 0) -> Sequence[StorageVolume]: ...
    def storageVolLookupByName(self, name: str) -> StorageVolume: ...
    def createXML(self, xmlDesc: str, flags: int = 0) -> StorageVolume: ...


class Domain(Protocol):
    """virDomain."""

    def name(self) -> str: ...
    def isActive(self) -> int: ...
    def isPersistent(self) -> int: ...
    def XMLDesc(self, flags: int = 0) -> str: ...


class Connection(Protocol):
    """virConnect. May be used by several threads at once."""

    def isAlive(self) -> int: ...
    def close(self) -> int: ...
    def getLibVersion(self) -> int: ...
    def listAllDomains(self, flags: int = 0) -> Sequence[Domain]: ...
    def listAllStoragePools(self, flags: int = 0) -> Sequence[StoragePool]: ...
    def storagePoolLookupByName(self, name: str) -> StoragePool: ...
    def newStream(self, flags: int = 0) -> Stream: ...


class LibvirtError(Protocol):
    """What ``libvirtError`` tells."""

    def get_error_code(self) -> int: ...
    def get_error_message(self) -> str | None: ...


class Binding(Protocol):
    """The module ``libvirt``."""

    libvirtError: type[Exception]

    def open(self, name: str) -> Connection: ...
    def registerErrorHandler(self, f: Callable[[object, object], None], ctx: object) -> int: ...


def error_number(error: Exception) -> int:
    """Give libvirt's own code of an error it raised."""
    return cast(LibvirtError, error).get_error_code()


def error_text(error: Exception) -> str:
    """Give what libvirt said."""
    return cast(LibvirtError, error).get_error_message() or str(error)


def load_binding() -> Binding:
    """Give the binding.

    Raises:
        HostUnfit: there is none for this interpreter; says what to install.
    """
    return _load(PLACES)


@functools.cache
def _load(places: tuple[Path, ...]) -> Binding:
    try:
        module = importlib.import_module(MODULE)
    except ImportError:
        module = _from_files(places)
    binding = cast(Binding, module)
    # The library's own handler prints every error on stderr; each of them is also raised.
    binding.registerErrorHandler(_say_nothing, None)
    return binding


def _from_files(places: tuple[Path, ...]) -> ModuleType:
    for place in places:
        source = place / f"{MODULE}.py"
        compiled = [place / f"{COMPILED}{suffix}" for suffix in EXTENSION_SUFFIXES]
        found = next((path for path in compiled if path.exists()), None)
        if source.exists() and found is not None:
            try:
                _load_file(COMPILED, found)
                return _load_file(MODULE, source)
            except ImportError as error:
                sys.modules.pop(COMPILED, None)
                raise _missing(f"{found} does not load: {error}") from error
    version = ".".join(str(part) for part in sys.version_info[:2])
    raise _missing(f"Python {version} ({sys.executable}) finds none, and {', '.join(map(str, places))} has none for it")


def _load_file(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _missing(why: str) -> HostUnfit:
    return HostUnfit("libvirt's Python binding is missing", details=why, resolution=INSTALL)


def _say_nothing(_context: object, _error: object) -> None:
    """Errors are raised where they happen."""
