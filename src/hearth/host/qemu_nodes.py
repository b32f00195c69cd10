"""How QEMU's tools are told of files they inherit: by descriptor, format and nothing they could find out themselves."""

from __future__ import annotations

import json
from dataclasses import dataclass

Node = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Layer:
    """An inherited file, or block device: ``format`` is ``raw`` or ``qcow2``."""

    format: str
    number: int
    is_block: bool = False


def source_of(image_format: str, number: int) -> str:
    """Name an inherited file for reading, so that neither format nor backing file is taken from its bytes."""
    return _words(_read_only(Layer(format=image_format, number=number), None))


def part_of(layer: Layer, base: Layer | None, offset_bytes: int, size_bytes: int) -> str:
    """Name a part of the disk in an inherited file, which lies over ``base``, for reading."""
    inner = _read_only(layer, base)
    return _words({"driver": "raw", "read-only": True, "offset": offset_bytes, "size": size_bytes, "file": inner})


def writable(layer: Layer, base: Layer | None) -> str:
    """Name the disk in an inherited file, which lies over ``base``, for changing it."""
    outer: Node = {"driver": layer.format, "file": _file(layer)}
    if layer.format == "qcow2":
        outer["backing"] = None if base is None else _read_only(base, None)
    return _words(outer)


def direct(layer: Layer, base: Layer | None) -> str:
    """Name the disk in an inherited file, which lies over ``base``, for reading past the host's cache."""
    return _words(_read_only(layer, base, is_direct=True))


def target_of(image_format: str, number: int, *, is_block: bool = False) -> str:
    """Name an inherited file or device for writing; zeros may become holes."""
    driver = "host_device" if is_block else "file"
    inner = {"driver": driver, "filename": _path(number), "locking": "off", "discard": "unmap"}
    outer: Node = {"driver": image_format, "discard": "unmap", "file": inner}
    if image_format == "qcow2":
        outer["backing"] = None
    return _words(outer)


def _read_only(layer: Layer, base: Layer | None, *, is_direct: bool = False) -> Node:
    inner = {**_file(layer), "read-only": True}
    if is_direct:
        inner["cache"] = {"direct": True}
    outer: Node = {"driver": layer.format, "read-only": True, "file": inner}
    if layer.format == "qcow2":
        outer["backing"] = None if base is None else _read_only(base, None)
    return outer


def _file(layer: Layer) -> Node:
    driver = "host_device" if layer.is_block else "file"
    return {"driver": driver, "filename": _path(layer.number), "locking": "off"}


def _path(number: int) -> str:
    return f"/proc/self/fd/{number}"


def _words(node: Node) -> str:
    return "json:" + json.dumps(node, separators=(",", ":"))
