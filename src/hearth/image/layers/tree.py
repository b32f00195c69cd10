"""The root file system that layers make together, as a value: nothing is on disk, and no path is ever followed there.

Whiteouts and replacement as the OCI image specification has them (layer.md: "Change Types", "Whiteouts"): they hide
what lower layers hold, whatever order a layer's entries come in. Symlinks in a path lead where they would inside the
image, never out of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hearth.image.layers.refused import refused, shown
from hearth.image.layers.tar import Entry, Kind

WHITEOUT, OPAQUE, AUFS = b".wh.", b".wh..wh..opq", b".wh..wh."
MAX_HOPS = 40
"""Symlinks on the way to one file, as the kernel has it (path_resolution(7))."""
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4000
"""Less than PATH_MAX: the tree is made below the current directory."""
MAX_TARGET_BYTES = 4095
MAX_DEPTH = 256
MAX_XATTRS_BYTES = 64 * 1024
KEPT_XATTRS = (b"user.", b"security.capability")
"""Others speak of the machine that made the image: its labels, its overlays."""


@dataclass(slots=True, eq=False)
class Node:
    """A file, whatever it is called: names are its directories' ``children``. Several names are hard links."""

    kind: Kind
    mode: int
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    stored: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    source: tuple[int, int] | None = None
    """The layer and the entry in it that hold its data."""
    children: dict[bytes, Name] = field(default_factory=dict)


@dataclass(slots=True)
class Name:
    """What a name in a directory stands for, and the layer that gave it."""

    node: Node
    layer: int


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much an image may hold, all layers together: entries, and bytes of one file as it appears."""

    entries: int
    file_bytes: int


class Tree:
    """Grows layer by layer, the lowest first.

    Args:
        whiteouts: names that begin with ``.wh.`` hide others; in an archive of a plain file system they are just names.
    """

    def __init__(self, limits: Limits, *, whiteouts: bool = True) -> None:
        self.root = Node(Kind.DIRECTORY, 0o755)
        self.entries = 0
        self._limits = limits
        self._whiteouts = whiteouts
        self._layer = -1

    def begin_layer(self) -> int:
        """Let what is added from now on lie over everything before; give the layer's number, from 0."""
        self._layer += 1
        return self._layer

    def add(self, entry: Entry) -> None:
        """Add one entry of the current layer.

        Raises:
            ImageRefused: it lies outside, below a file, links to nothing, or is beyond a limit.
        """
        self.entries += 1
        if self.entries > self._limits.entries:
            raise refused(f"it has more than {self._limits.entries} files")
        parts = parts_of(entry.name)
        if not parts:
            self._set_root(entry)
            return
        *above, name = parts
        if self._whiteouts and name.startswith(WHITEOUT):
            self._hide(above, name)
            return
        parent = self._directory(above, entry.name)
        if entry.kind is Kind.LINK:
            node = self._linked(entry)
        else:
            node = self._node(entry)
            old = parent.children.get(name)
            if old is not None and node.kind is old.node.kind is Kind.DIRECTORY:
                node.children = old.node.children
        parent.children[name] = Name(node, self._layer)

    def ensure_directory(self, path: bytes, mode: int = 0o755) -> None:
        """Have a directory there, unless something is; one that is made belongs to root."""
        *above, name = parts_of(path) or [b""]
        if name:
            directory = self._directory(above, path)
            directory.children.setdefault(name, Name(Node(Kind.DIRECTORY, mode), self._layer))

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Give path and node of everything but the root, each directory before what is in it, in the order of names.

        Raises:
            ImageRefused: a path is too long, or too deep.
        """
        stack = [iter(sorted(self.root.children.items()))]
        path: list[bytes] = []
        while stack:
            found = next(stack[-1], None)
            if found is None:
                stack.pop()
                path = path[:-1]
                continue
            name, link = found
            whole = b"/".join([*path, name])
            if len(whole) > MAX_PATH_BYTES or len(path) >= MAX_DEPTH:
                raise refused(f"a path is too long or too deep: {shown(whole)}")
            yield whole, link.node
            if link.node.kind is Kind.DIRECTORY:
                path = [*path, name]
                stack.append(iter(sorted(link.node.children.items())))

    def _set_root(self, entry: Entry) -> None:
        if entry.kind is not Kind.DIRECTORY:
            raise refused("its root is no directory")
        node = self._node(entry)
        node.children = self.root.children
        self.root = node

    def _node(self, entry: Entry) -> Node:
        if entry.size > self._limits.file_bytes:
            raise refused(f"{shown(entry.name)} has {entry.size} bytes, {self._limits.file_bytes} may be")
        if entry.kind is Kind.SYMLINK and not 0 < len(entry.target) <= MAX_TARGET_BYTES:
            raise refused(f"the symlink {shown(entry.name)} points to {len(entry.target)} bytes of path")
        if b"\0" in entry.target:
            raise refused(f"the target of the symlink {shown(entry.name)} holds a NUL")
        if not (0 <= entry.device[0] < 1 << 12 and 0 <= entry.device[1] < 1 << 20):
            raise refused(f"the device {shown(entry.name)} has the number {entry.device}")
        xattrs = {name: value for name, value in entry.xattrs.items() if name.startswith(KEPT_XATTRS)}
        if sum(len(name) + len(value) for name, value in xattrs.items()) > MAX_XATTRS_BYTES:
            raise refused(f"the attributes of {shown(entry.name)} are too long")
        return Node(
            kind=entry.kind,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime_ns=entry.mtime_ns,
            size=entry.size,
            stored=entry.stored,
            target=entry.target,
            device=entry.device,
            xattrs=xattrs,
            source=(self._layer, entry.number) if entry.kind is Kind.FILE else None,
        )

    def _linked(self, entry: Entry) -> Node:
        *above, name = parts_of(entry.target) or [b""]
        found = self._find(above) if name else None
        link = found.children.get(name) if found is not None else None
        if link is None:
            raise refused(f"{shown(entry.name)} is a link to {shown(entry.target)}, which is not there")
        if link.node.kind is Kind.DIRECTORY:
            raise refused(f"{shown(entry.name)} is a hard link to a directory")
        return link.node

    def _hide(self, above: list[bytes], name: bytes) -> None:
        directory = self._find(above)
        if name == OPAQUE:
            if directory is not None:
                self._prune(directory)
        elif not name.startswith(AUFS):  # those are the books of a storage driver
            hidden = name.removeprefix(WHITEOUT)
            if hidden in (b"", b".", b".."):
                raise refused(f"the whiteout {shown(name)} hides no name")
            link = directory.children.get(hidden) if directory is not None else None
            if directory is not None and link is not None and self._is_gone(link):
                del directory.children[hidden]

    def _prune(self, directory: Node) -> None:
        """Take away what lower layers put into a directory."""
        gone = [name for name, link in directory.children.items() if self._is_gone(link)]
        for name in gone:
            del directory.children[name]

    def _is_gone(self, link: Name) -> bool:
        """Tell whether nothing is left of a name when lower layers are taken away, which happens below it."""
        if link.node.kind is Kind.DIRECTORY:
            self._prune(link.node)
            return link.layer < self._layer and not link.node.children
        return link.layer < self._layer

    def _directory(self, parts: list[bytes], of: bytes) -> Node:
        found = self._walk_to(parts, make=True)
        if found is None:
            raise refused(f"{shown(of)} lies below something that is no directory")
        return found

    def _find(self, parts: list[bytes]) -> Node | None:
        return self._walk_to(parts, make=False)

    def _walk_to(self, parts: list[bytes], *, make: bool) -> Node | None:
        """Find a directory; symlinks lead where they lead inside the image, ``..`` never above its root."""
        way = [self.root]
        ahead = parts[::-1]
        hops = 0
        while ahead:
            part = ahead.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                way = way[:-1] or way
                continue
            link = way[-1].children.get(part)
            if link is None:
                if not make:
                    return None
                if len(part) > MAX_NAME_BYTES or len(way) > MAX_DEPTH:
                    raise refused(f"a path is too long or too deep: {shown(part)}")
                link = way[-1].children[part] = Name(Node(Kind.DIRECTORY, 0o755), self._layer)
            node = link.node
            if node.kind is Kind.SYMLINK:
                hops += 1
                if hops > MAX_HOPS:
                    raise refused(f"a path leads over more than {MAX_HOPS} symlinks")
                if node.target.startswith(b"/"):
                    way = [self.root]
                ahead += node.target.split(b"/")[::-1]
            elif node.kind is Kind.DIRECTORY:
                way.append(node)
            else:
                return None
        return way[-1]


def parts_of(name: bytes) -> list[bytes]:
    """Take a name in an archive apart; one from the root is one inside the image, as every other.

    Raises:
        ImageRefused: it goes up, or is too long.
    """
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise refused(f"a name leads upwards: {shown(name)}")
    if len(name) > MAX_PATH_BYTES or len(parts) > MAX_DEPTH or any(len(part) > MAX_NAME_BYTES for part in parts):
        raise refused(f"a name is too long: {shown(name)}")
    return parts
