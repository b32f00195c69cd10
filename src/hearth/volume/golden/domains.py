"""Which libvirt domains have a volume among their disks, running or only defined, or something that lies over it."""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import structlog

from hearth.host.libvirt import Libvirt
from hearth.host.libvirt_binding import NO_DOMAIN, XML_INACTIVE, Connection, Domain, error_number, load_binding
from hearth.host.threads import on_own_thread
from hearth.volume.golden.base import taken

log = structlog.get_logger(__name__)

CHAIN_MAX = 64
"""Of files that lie over one another; a ring of them ends here too."""
QCOW2_HEADER = struct.Struct(">4sIQI")
"""Magic, version, offset and length of the backing file's name (QEMU, docs/interop/qcow2.txt)."""
QCOW2_MAGIC = b"QFI\xfb"
BACKING_NAME_MAX_BYTES = 1023
FILES_OF_START = ("os/loader", "os/nvram", "os/kernel", "os/initrd")


@dataclass(frozen=True, kw_only=True)
class Disk:
    """What a domain names: a path of the host, or a volume of a pool. ``format`` is empty where it is not said."""

    path: str = ""
    pool: str = ""
    volume: str = ""
    format: str = ""


class Domains:
    """Asks a libvirt for the users of files and devices."""

    def __init__(self, libvirt: Libvirt) -> None:
        self._libvirt = libvirt

    async def users(self, path: Path) -> Sequence[str]:
        """Give the names of the domains that have this file or device, or something that lies over it.

        Raises:
            LibvirtUnavailable: nobody can tell.
        """
        named = await self._libvirt.call(_disks_of_all)
        is_here = self._libvirt.is_local
        return await on_own_thread("domains", lambda: _users_among(named, path, is_here=is_here))

    async def user_of(self, path: Path) -> str | None:
        """Give the users in words, None where there are none. Raises as ``users``."""
        users = await self.users(path)
        return f"the libvirt domain {', '.join(users)}" if users else None

    async def require_unused(self, name: str, path: Path) -> None:
        """Refuse a volume that a domain has.

        Raises:
            Conflict: one has; names ``volume_name``.
            LibvirtUnavailable: nobody can tell.
        """
        if (user := await self.user_of(path)) is not None:
            raise taken(name, f"is in use by {user}")


def disks_of(xml: str) -> list[Disk]:
    """Give every file, device and volume that a domain's description names as a disk, backing files and mirrors too."""
    root = ElementTree.fromstring(xml)  # noqa: S314 - libvirt formats it anew from what it has parsed
    found = []
    for disk in root.iterfind("./devices/disk"):
        driver = disk.find("driver")
        outer = "" if driver is None else driver.get("type", "")
        for holder in disk.iter():
            source = holder.find("source")
            if source is not None:
                inner = holder.find("format")
                said = outer if inner is None else inner.get("type", "")
                found.append(_disk(source, said))
    for source in root.iterfind("./devices/filesystem/source"):
        found.append(_disk(source, ""))
    for place in FILES_OF_START:
        for element in root.iterfind(f"./{place}"):
            found.append(Disk(path=(element.text or "").strip()))
            found.extend(_disk(source, "") for source in element.iterfind("source"))
    return [disk for disk in found if disk.path or disk.volume]


def _disk(source: ElementTree.Element, image_format: str) -> Disk:
    path = next((value for key in ("file", "dev") if (value := source.get(key))), "")
    return Disk(path=path, pool=source.get("pool", ""), volume=source.get("volume", ""), format=image_format)


def lies_over(path: str) -> str:
    """Give the backing file that a qcow2 file names, empty where there is none. Nothing of it is opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        if not (stat.S_ISREG(os.fstat(descriptor).st_mode) or stat.S_ISBLK(os.fstat(descriptor).st_mode)):
            return ""
        header = os.pread(descriptor, QCOW2_HEADER.size, 0)
        if len(header) < QCOW2_HEADER.size:
            return ""
        magic, _, offset, length = QCOW2_HEADER.unpack(header)
        if magic != QCOW2_MAGIC or not offset or not 0 < length <= BACKING_NAME_MAX_BYTES:
            return ""
        name = _file_of(os.fsdecode(os.pread(descriptor, length, min(offset, 1 << 60))))
    except OSError:
        return ""
    finally:
        os.close(descriptor)
    # From the directory of the name it was opened by, as QEMU does it.
    return str(Path(path).parent / name) if name and "\0" not in name else ""


def _file_of(name: str) -> str:
    """Give the file in a backing file's name as QEMU writes them, empty where there is none in it."""
    if not name.startswith("json:"):
        return name.removeprefix("file:")
    try:
        node = json.loads(name.removeprefix("json:"))
        for _ in range(CHAIN_MAX):
            if not isinstance(node, dict):
                return ""
            for key in ("filename", "file.filename"):
                if isinstance(node.get(key), str):
                    return str(node[key])
            node = node.get("file")
    except (ValueError, RecursionError):
        pass
    return ""


def chain_of(disk: Disk) -> Iterator[str]:
    """Give a disk's path and what it lies over, all the way down."""
    path, is_followed = disk.path, disk.format == "qcow2"
    for _ in range(CHAIN_MAX):
        if not path:
            return
        yield path
        path = lies_over(path) if is_followed else ""


def identity(path: str, *, is_here: bool = True) -> tuple[object, ...]:
    """Give what two names of one file or device have in common; the name where nobody can look."""
    if is_here:
        try:
            status = Path(path).stat()
        except (OSError, ValueError):
            return ("name", os.path.realpath(path) if "\0" not in path else path)
        if stat.S_ISBLK(status.st_mode):
            return ("device", status.st_rdev)
        return ("file", status.st_dev, status.st_ino)
    return ("name", path)


def _users_among(named: Sequence[tuple[str, Sequence[Disk]]], path: Path, *, is_here: bool) -> list[str]:
    wanted = identity(str(path), is_here=is_here)
    users = []
    for name, disks in named:
        paths = (each for disk in disks for each in (chain_of(disk) if is_here else (disk.path,)))
        if any(identity(each, is_here=is_here) == wanted for each in paths):
            users.append(name)
    return sorted(users)


def _disks_of_all(connection: Connection) -> list[tuple[str, list[Disk]]]:
    """Ask for every domain's description, and that of its next start; blocking."""
    places: dict[tuple[str, str], str] = {}
    found = []
    for domain in connection.listAllDomains():
        disks = [disk for xml in _descriptions(domain) for disk in disks_of(xml)]
        found.append((domain.name(), [_placed(connection, disk, places) for disk in disks]))
    return found


def _descriptions(domain: Domain) -> list[str]:
    try:
        texts = [domain.XMLDesc(0)]
        if domain.isActive() and domain.isPersistent():
            texts.append(domain.XMLDesc(XML_INACTIVE))
    except load_binding().libvirtError as error:
        if error_number(error) == NO_DOMAIN:
            return []  # it ended meanwhile
        raise
    return texts


def _placed(connection: Connection, disk: Disk, places: dict[tuple[str, str], str]) -> Disk:
    """Give a disk that is named as a pool's volume its path."""
    if disk.path:
        return disk
    key = (disk.pool, disk.volume)
    if key not in places:
        places[key] = _path_of(connection, disk)
    return Disk(path=places[key], pool=disk.pool, volume=disk.volume, format=disk.format)


def _path_of(connection: Connection, disk: Disk) -> str:
    failures = load_binding().libvirtError
    try:
        pool = connection.storagePoolLookupByName(disk.pool)
        try:
            return pool.storageVolLookupByName(disk.volume).path()
        except failures:
            # A pool that is stopped lists nothing; its volumes lie where it says.
            root = ElementTree.fromstring(pool.XMLDesc(0))  # noqa: S314 - as above
            directory = root.findtext("./target/path", "").strip()
            return f"{directory}/{disk.volume}" if directory else ""
    except failures as error:
        log.debug("a domain's volume is nowhere", pool=disk.pool, volume=disk.volume, why=str(error))
        return ""
