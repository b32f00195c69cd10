"""What a tar archive from somebody holds: an image of ``docker save``, an OCI layout, or a plain file system."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO

from hearth.image.layers.refused import refused
from hearth.image.layers.streams import ByteStream, OnBytes, compression_of
from hearth.image.layers.tar import Kind, TarReader
from hearth.image.oci.documents import (
    INDEX_TYPES,
    MAX_DOCUMENT_BYTES,
    Descriptor,
    ImageConfig,
    Index,
    Platform,
    SavedImage,
    check_content,
    check_digest,
    choose,
    decode,
    read_config,
    read_manifest,
)

MAX_MEMBERS = 100_000
"""Of an archive that is an image; a plain file system may have as many files as an image."""
INDEX_NAME, SAVED_NAME = "index.json", "manifest.json"
MAX_NESTING = 3


@dataclass(kw_only=True)
class Members:
    """The files of an uncompressed archive, by their names: where they begin, and their sizes in bytes."""

    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> tuple[int, int] | None:
        """Find a file; one link on the way is followed, which ``docker save`` makes of layers it has twice."""
        name = posixpath.normpath(name)
        target = self.links.get(name)
        return self.files.get(name if target is None else posixpath.normpath(target))


@dataclass(frozen=True, kw_only=True)
class FoundLayer:
    """A layer inside an archive; without a ``digest`` its checksum is known uncompressed alone."""

    start: int
    size: int
    digest: str | None


@dataclass(frozen=True, kw_only=True)
class FoundImage:
    """An image inside an archive."""

    config: ImageConfig
    layers: list[FoundLayer]


class Window:
    """A part of a file, read as if it were the whole of one."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._descriptor = file.fileno()
        self._at = start
        self._end = start + size

    def read(self, size: int) -> bytes:
        data = os.pread(self._descriptor, min(size, self._end - self._at), self._at)
        self._at += len(data)
        return data


def index_members(file: BinaryIO, *, max_bytes: int, on_bytes: OnBytes | None = None) -> Members | None:
    """Read an archive from its beginning; None when it is no image but a file system.

    Raises:
        ImageRefused: it is damaged or too large.
    """
    stream = ByteStream(file, max_bytes=max_bytes, on_bytes=on_bytes)
    reader = TarReader(stream, needs_end=True)
    members = Members()
    for entry in reader:
        if len(members.files) + len(members.links) >= MAX_MEMBERS:
            return None
        name = posixpath.normpath(os.fsdecode(entry.name).lstrip("/"))
        if entry.kind is Kind.FILE and entry.ranges is None:
            members.files[name] = (stream.position, entry.stored)
        elif entry.kind is Kind.SYMLINK:
            members.links[name] = posixpath.join(posixpath.dirname(name), os.fsdecode(entry.target))
        elif entry.kind is Kind.LINK:
            members.links[name] = os.fsdecode(entry.target)
    is_layout = INDEX_NAME in members.files and "oci-layout" in members.files
    return members if is_layout or SAVED_NAME in members.files else None


def is_compressed(file: BinaryIO) -> bool:
    """Tell whether a file begins as compressed ones do; it stays where it is."""
    return compression_of(os.pread(file.fileno(), 8, 0)) is not None


def find_image(file: BinaryIO, members: Members, wanted: Platform) -> FoundImage | None:
    """Find the one image of an uncompressed archive; None when it holds such names by chance only.

    Raises:
        ImageRefused: its documents contradict each other, or there are several images.
    """

    def read(name: str, what: str) -> bytes:
        found = members.find(name)
        if found is None:
            raise refused(f"the archive has no {name}, which is its {what}")
        if found[1] > MAX_DOCUMENT_BYTES:
            raise refused(f"{name} has {found[1]} bytes, {MAX_DOCUMENT_BYTES} may be")
        return os.pread(file.fileno(), found[1], found[0])

    if "oci-layout" in members.files and INDEX_NAME in members.files:
        return _of_layout(read, members, wanted)
    start = read(SAVED_NAME, "list").lstrip()[:1]
    if start != b"[":
        return None
    return _of_saved(read, members, wanted)


Read = Callable[[str, str], bytes]


def _of_layout(read: Read, members: Members, wanted: Platform) -> FoundImage:
    index = decode(read(INDEX_NAME, "index"), Index, "index")
    descriptor = _single(index, wanted)
    for _ in range(MAX_NESTING):
        data = read(_blob_name(descriptor, "manifest"), "manifest")
        check_content(data, descriptor, "manifest")
        if descriptor.media_type not in INDEX_TYPES:
            break
        descriptor = choose(decode(data, Index, "index").manifests, wanted)
    else:
        raise refused("its indexes lead to one another")
    manifest = read_manifest(data)
    config = read(_blob_name(manifest.config, "configuration"), "configuration")
    check_content(config, manifest.config, "configuration")
    layers = []
    for layer in manifest.layers:
        start, size = _layer(members, _blob_name(layer, "layer"))
        if size != layer.size:
            raise refused(f"the layer {layer.digest} has {size} bytes instead of {layer.size}")
        layers.append(FoundLayer(start=start, size=size, digest=layer.digest))
    return FoundImage(config=read_config(config, len(layers), wanted), layers=layers)


def _single(index: Index, wanted: Platform) -> Descriptor:
    """Choose of a layout's index, where images of other names may stand beside those of other platforms."""
    if len(index.manifests) == 1:
        return index.manifests[0]
    return choose(index.manifests, wanted)


def _of_saved(read: Read, members: Members, wanted: Platform) -> FoundImage:
    images = decode(read(SAVED_NAME, "list"), list[SavedImage], "list")
    if len(images) != 1:
        names = ", ".join(tag for image in images for tag in image.repo_tags or ["an unnamed one"])[:400]
        raise refused(f"it holds {len(images)} images: {names}", resolution="save one image into an archive of its own")
    config = read_config(read(images[0].config, "configuration"), len(images[0].layers), wanted)
    layers = [_layer(members, name) for name in images[0].layers]
    return FoundImage(config=config, layers=[FoundLayer(start=start, size=size, digest=None) for start, size in layers])


def _blob_name(descriptor: Descriptor, what: str) -> str:
    return f"blobs/{check_digest(descriptor.digest, what).replace(':', '/')}"


def _layer(members: Members, name: str) -> tuple[int, int]:
    found = members.find(name)
    if found is None:
        raise refused(f"the archive has no {name[:200]}, which is one of its layers")
    return found
