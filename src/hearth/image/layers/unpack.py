"""The program that makes a directory of layers or of an archive: an order on stdin, what came of it on stdout.

It is a process of its own because what it reads is a stranger's: it has bounds on time, memory and files, no network,
and once its files are open it sees nothing of the host but the directory that it fills (chroot(2)). Layers are read
twice, first for what there is and whether it is what their checksums say, then for the data of what is left of it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from typing import BinaryIO

import msgspec

from hearth.errors import HearthError
from hearth.image.layers.archive import FoundImage, FoundLayer, Window, find_image, index_members, is_compressed
from hearth.image.layers.orders import Outcome, Problem, Told, UnpackOrder
from hearth.image.layers.refused import refused
from hearth.image.layers.streams import CHUNK_BYTES, ByteStream
from hearth.image.layers.tar import TarReader
from hearth.image.layers.tree import Limits, Tree
from hearth.image.layers.write import Written, write_tree
from hearth.image.oci.documents import Defaults, Platform

TELL_EVERY_S = 0.25
SPOOL = "spool.tar"

Open = Callable[[], BinaryIO]


class Teller:
    """Tells on stderr how far it is, a line of JSON a quarter of a second."""

    def __init__(self) -> None:
        self._stage = ""
        self._done = self._total = 0
        self._at_s = 0.0

    def begin(self, stage: str, total: int) -> None:
        self._stage, self._done, self._total, self._at_s = stage, 0, total, 0.0
        self(0)

    def __call__(self, count: int) -> None:
        self._done += count
        now_s = time.monotonic()
        if now_s - self._at_s >= TELL_EVERY_S:
            self._at_s = now_s
            line = msgspec.json.encode(Told(stage=self._stage, done=self._done, total=self._total))
            sys.stderr.buffer.write(line + b"\n")
            sys.stderr.buffer.flush()


class Layers:
    """The layers, each of which can be read from its beginning any number of times."""

    def __init__(self, openers: list[Open], *, max_bytes: int, needs_end: bool, teller: Teller) -> None:
        self._openers = openers
        self._max_bytes = max_bytes
        self._needs_end = needs_end
        self._teller = teller

    def stream(self, number: int, max_bytes: int | None = None) -> ByteStream:
        limit = self._max_bytes if max_bytes is None else max_bytes
        return ByteStream(self._openers[number](), max_bytes=limit, on_bytes=self._teller)

    def reader(self, number: int) -> TarReader:
        return TarReader(self.stream(number), needs_end=self._needs_end)

    def merge(self, tree: Tree, diff_ids: list[str] | None) -> None:
        """Add all of them to a tree, and compare their checksums where those are known.

        Raises:
            ImageRefused: a layer is damaged, not what its checksum says, or there is too much in all of them.
        """
        left = self._max_bytes
        for number in range(len(self._openers)):
            stream = self.stream(number, left)
            tree.begin_layer()
            for entry in TarReader(stream, needs_end=self._needs_end):
                tree.add(entry)
            digest = f"sha256:{stream.sha256()}"
            left -= stream.position
            if diff_ids is not None and digest != diff_ids[number]:
                raise refused(f"layer {number + 1} is not what its checksum says: {digest}, not {diff_ids[number]}")


def main() -> int:
    """Do what stdin says; always tell on stdout what came of it."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=UnpackOrder)
    try:
        outcome: Outcome | Problem = _unpack(order, Teller())
    except HearthError as error:
        outcome = Problem(brief=error.brief, details=error.details, resolution=error.resolution)
    except MemoryError:
        outcome = Problem(brief="the image cannot be used", details="it takes too much memory to unpack")
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
    return 0


def _unpack(order: UnpackOrder, teller: Teller) -> Outcome:
    tree = Tree(Limits(entries=order.max_entries, file_bytes=order.max_bytes), whiteouts=order.archive is None)
    if order.archive is None:
        files: list[BinaryIO] = [open(path, "rb") for path in order.layers]  # noqa: SIM115 -- as long as we live
        openers = [_again(file) for file in files]
        total = sum(os.fstat(file.fileno()).st_size for file in files)
        _enclose(order.tree)
        layers = Layers(openers, max_bytes=order.max_bytes, needs_end=False, teller=teller)
        return _make(order, tree, layers, order.diff_ids, Defaults(), total, teller)
    return _unpack_archive(order, tree, order.archive, teller)


def _unpack_archive(order: UnpackOrder, tree: Tree, path: str, teller: Teller) -> Outcome:
    file: BinaryIO = open(path, "rb")  # noqa: SIM115 -- as long as we live
    total = os.fstat(file.fileno()).st_size
    spool = open(os.path.join(os.path.dirname(order.tree), SPOOL), "w+b")  # noqa: SIM115
    _enclose(order.tree)
    teller.begin("reading", total)
    members = index_members(file, max_bytes=order.max_bytes, on_bytes=teller)
    found: FoundImage | None = None
    if members is not None:
        if is_compressed(file):
            _decompress(file, spool, order.max_bytes)
            file = spool
        found = find_image(file, members, Platform(os="linux", architecture=order.architecture, variant=order.variant))
    if found is None:
        layers = Layers([_again(file)], max_bytes=order.max_bytes, needs_end=True, teller=teller)
        return _make(order, tree, layers, None, Defaults(), total, teller)
    tree = Tree(Limits(entries=order.max_entries, file_bytes=order.max_bytes))
    for layer in found.layers:
        _check_layer(file, layer)
    openers = [_part(file, layer) for layer in found.layers]
    layers = Layers(openers, max_bytes=order.max_bytes, needs_end=False, teller=teller)
    said, diff_ids = found.config.config or Defaults(), found.config.rootfs.diff_ids
    return _make(order, tree, layers, diff_ids, said, sum(layer.size for layer in found.layers), teller)


def _make(
    order: UnpackOrder,
    tree: Tree,
    layers: Layers,
    diff_ids: list[str] | None,
    said: Defaults,
    total: int,
    teller: Teller,
) -> Outcome:
    teller.begin("merging", total)
    layers.merge(tree, diff_ids)
    for name, mode in order.directories.items():
        tree.ensure_directory(os.fsencode(name), mode)
    if working := said.working_dir or order.working_dir:
        tree.ensure_directory(os.fsencode(working))
    if not any(True for _ in tree.walk()):
        raise refused("there is nothing in it")
    teller.begin("writing", total)
    written: Written = write_tree(tree, layers.reader)
    return Outcome(
        names=written.names,
        data_bytes=written.data_bytes,
        lost_xattrs=written.lost_xattrs,
        defaults=said,
        is_image=diff_ids is not None,
    )


def _enclose(directory: str) -> None:
    """See nothing but this directory from now on."""
    os.chroot(directory)
    os.chdir("/")


def _again(file: BinaryIO) -> Open:
    def open_again() -> BinaryIO:
        return _part(file, FoundLayer(start=0, size=os.fstat(file.fileno()).st_size, digest=None))()

    return open_again


def _part(file: BinaryIO, layer: FoundLayer) -> Open:
    return lambda: Window(file, layer.start, layer.size)  # type: ignore[return-value]


def _check_layer(file: BinaryIO, layer: FoundLayer) -> None:
    """Compare a layer with its checksum, as it is in the archive, where that is known."""
    if layer.digest is None:
        return
    digest, window = hashlib.new(layer.digest.partition(":")[0]), Window(file, layer.start, layer.size)
    while piece := window.read(CHUNK_BYTES):
        digest.update(piece)
    if digest.hexdigest() != layer.digest.partition(":")[2]:
        raise refused(f"the layer {layer.digest} is not what its digest says")


def _decompress(file: BinaryIO, spool: BinaryIO, max_bytes: int) -> None:
    stream = ByteStream(_again(file)(), max_bytes=max_bytes)
    while piece := stream.read(CHUNK_BYTES):
        spool.write(piece)
    spool.flush()


if __name__ == "__main__":
    raise SystemExit(main())
