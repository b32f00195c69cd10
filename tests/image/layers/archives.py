"""Archives for tests, by the standard library's writer: entries in, bytes out."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, field

from hearth.image.layers.streams import ByteStream
from hearth.image.layers.tar import Entry, TarReader

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Item:
    """One entry of an archive."""

    name: str
    type: bytes = tarfile.REGTYPE
    data: bytes = b""
    target: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = 1_000_000
    device: tuple[int, int] = (0, 0)
    pax: dict[str, str] = field(default_factory=dict)


def file(name: str, data: bytes | str = b"", **more: object) -> Item:
    return Item(name=name, data=data.encode() if isinstance(data, str) else data, **more)  # type: ignore[arg-type]


def directory(name: str, mode: int = 0o755) -> Item:
    return Item(name=name, type=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> Item:
    return Item(name=name, type=tarfile.SYMTYPE, target=target, mode=0o777)


def link(name: str, target: str) -> Item:
    return Item(name=name, type=tarfile.LNKTYPE, target=target)


def archive(*items: Item, format: int = tarfile.PAX_FORMAT) -> bytes:
    """Give the bytes of an archive; names go in as they are, whatever they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for item in items:
            info = tarfile.TarInfo(item.name)
            info.type, info.linkname, info.mode, info.mtime = item.type, item.target, item.mode, item.mtime
            info.uid, info.gid, info.size = item.uid, item.gid, len(item.data)
            info.devmajor, info.devminor = item.device
            info.pax_headers = dict(item.pax)
            tar.addfile(info, io.BytesIO(item.data))
    return buffer.getvalue()


def read(data: bytes, *, needs_end: bool = True, max_bytes: int = GIB) -> list[tuple[Entry, bytes]]:
    """Give all entries of an archive with their data."""
    reader = TarReader(ByteStream(io.BytesIO(data), max_bytes=max_bytes), needs_end=needs_end)
    return [(entry, b"".join(bytes(piece) for piece in reader.data())) for entry in reader]
