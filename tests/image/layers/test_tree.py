"""Layers over layers: whiteouts, replacement, links, and names that want out."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.image.layers.archives import Item, archive, directory, file, link, read, symlink

from hearth.image.layers.refused import ImageRefused
from hearth.image.layers.tar import Kind
from hearth.image.layers.tree import Limits, Tree

LIMITS = Limits(entries=1000, file_bytes=1 << 20)


def merged(*layers: Sequence[Item], whiteouts: bool = True) -> Tree:
    tree = Tree(LIMITS, whiteouts=whiteouts)
    for items in layers:
        tree.begin_layer()
        for entry, _ in read(archive(*items)):
            tree.add(entry)
    return tree


def names(tree: Tree) -> list[str]:
    return [path.decode() for path, _ in tree.walk()]


LOWER = [directory("d"), directory("d/e"), file("d/e/low", "1"), file("d/x", "2"), file("f", "3")]
CASES: dict[str, tuple[list[list[Item]], list[str]]] = {
    "a whiteout hides a file": ([LOWER, [file(".wh.f")]], ["d", "d/e", "d/e/low", "d/x"]),
    "and a directory with all in it": ([LOWER, [file("d/.wh.e")]], ["d", "d/x", "f"]),
    "one of nothing is fine": ([LOWER, [file("no/.wh.such")]], ["d", "d/e", "d/e/low", "d/x", "f"]),
    "an opaque directory hides what is below": ([LOWER, [file("d/.wh..wh..opq")]], ["d", "f"]),
    "what comes in the same layer stays, before it": (
        [LOWER, [file("d/new"), file("d/.wh..wh..opq")]],
        ["d", "d/new", "f"],
    ),
    "and after it": ([LOWER, [file("d/.wh..wh..opq"), file("d/new")]], ["d", "d/new", "f"]),
    "a file of the same layer is not hidden": (
        [LOWER, [file("f", "new"), file(".wh.f")]],
        ["d", "d/e", "d/e/low", "d/x", "f"],
    ),
    "deep in a directory that is hidden": (
        [LOWER, [file("d/e/new"), file(".wh.d")]],
        ["d", "d/e", "d/e/new", "f"],
    ),
    "a later layer brings back": ([LOWER, [file(".wh.f")], [file("f")]], ["d", "d/e", "d/e/low", "d/x", "f"]),
    "a file replaces a directory": ([LOWER, [file("d")]], ["d", "f"]),
    "a directory replaces a file": (
        [LOWER, [directory("f"), file("f/in")]],
        ["d", "d/e", "d/e/low", "d/x", "f", "f/in"],
    ),
    "a directory over one keeps what is in it": ([LOWER, [directory("d", 0o700)]], ["d", "d/e", "d/e/low", "d/x", "f"]),
    "books of a storage driver are none": (
        [LOWER, [file(".wh..wh.plnk/1.2"), file(".wh..wh.aufs")]],
        [*(".wh..wh.plnk", ".wh..wh.plnk/1.2", "d", "d/e", "d/e/low", "d/x", "f")],
    ),
    "parents that nobody named": ([[file("a/b/c")]], ["a", "a/b", "a/b/c"]),
    "dots and slashes mean nothing": ([[file("./a//b/./c"), file("/abs")]], ["a", "a/b", "a/b/c", "abs"]),
    "a symlinked parent leads inside": (
        [[directory("etc"), symlink("a", "/etc")], [file("a/passwd")]],
        ["a", "etc", "etc/passwd"],
    ),
    "a relative one, too": (
        [[symlink("x/lib", "../usr/lib")], [file("x/lib/so")]],
        ["usr", "usr/lib", "usr/lib/so", "x", "x/lib"],
    ),
    "and never above the root": (
        [[symlink("up", "../../../../etc")], [file("up/shadow")]],
        ["etc", "etc/shadow", "up"],
    ),
    "a whiteout through a symlink": ([[file("etc/x"), symlink("a", "etc")], [file("a/.wh.x")]], ["a", "etc"]),
}


@pytest.mark.parametrize(("layers", "expected"), CASES.values(), ids=CASES.keys())
def test_layers_make_this(layers: list[list[Item]], expected: list[str]) -> None:
    assert names(merged(*layers)) == expected


BAD: dict[str, list[list[Item]]] = {
    "a name that leads upwards": [[file("../etc/passwd")]],
    "inside, too": [[file("a/../../b")]],
    "a whiteout upwards": [[file("../.wh.x")]],
    "a whiteout of the directory itself": [[file(".wh..")]],
    "a whiteout of the one above": [[file(".wh...")]],
    "a whiteout of nothing": [[file(".wh.")]],
    "a file below a file": [[file("f"), file("f/g")]],
    "a hard link to nothing": [[link("h", "no/such")]],
    "a hard link upwards": [[link("h", "../../etc/passwd")]],
    "a hard link to a directory": [[directory("d"), link("h", "d")]],
    "a hard link that a whiteout hid": [[file("f")], [file(".wh.f"), link("h", "f")]],
    "symlinks in a circle": [[symlink("a", "b"), symlink("b", "a"), file("a/x")]],
    "a root that is no directory": [[symlink("/", "/etc")]],
    "a name of 256 bytes": [[file("n" * 256)]],
    "a path of 5000 bytes": [[file("/".join(["n" * 99] * 50))]],
    "a tree of 300 levels": [[file("/".join("d" * 300))]],
    "a device that no kernel has": [[Item(name="d", type=tarfile.CHRTYPE, device=(4096, 0))]],
    "a file larger than may be": [[file("x", pax={"GNU.sparse.map": "0,0", "GNU.sparse.size": str(1 << 40)})]],
    "more files than may be": [[file(f"f{number}") for number in range(1001)]],
    "a NUL in a name": [[file("x", pax={"path": "a\0b"})]],
}


@pytest.mark.parametrize("layers", BAD.values(), ids=BAD.keys())
def test_this_is_refused(layers: list[list[Item]]) -> None:
    with pytest.raises(ImageRefused):
        names(merged(*layers))


def test_paths_that_symlinks_make_deep_are_refused() -> None:
    deep = "/".join("d" * 200)
    with pytest.raises(ImageRefused, match="too deep"):
        merged([file(f"{deep}/x"), symlink("s", f"/{deep}")], [file("s/" + "/".join("e" * 100))])


def test_hard_links_are_one_file_also_when_one_name_goes() -> None:
    tree = merged([file("a", "data"), link("b", "a")], [file(".wh.a")])
    ((path, node),) = tree.walk()
    assert (path, node.size, node.kind) == (b"b", 4, Kind.FILE)


def test_the_last_of_equal_names_counts() -> None:
    tree = merged([file("a", "1", mode=0o600), file("a", "22", mode=0o4755)])
    ((_, node),) = tree.walk()
    assert (node.size, node.mode, node.source) == (2, 0o4755, (0, 1))


def test_attributes_of_a_machine_are_left_behind() -> None:
    prefix = "SCHILY.xattr."
    pax = {prefix + "user.a": "1", prefix + "security.selinux": "label", prefix + "trusted.overlay.opaque": "y"}
    ((_, node),) = merged([file("a", pax=pax)]).walk()
    assert node.xattrs == {b"user.a": b"1"}


def test_in_a_plain_file_system_whiteouts_are_names() -> None:
    assert names(merged([file("f"), file(".wh.f")], whiteouts=False)) == [".wh.f", "f"]


PARTS = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
CHANGES = st.lists(st.tuples(st.sampled_from(["file", "dir", "gone", "opaque"]), PATHS), max_size=8)


def model_of(layers: list[list[tuple[str, str]]]) -> dict[str, str]:
    """Merge as on paper: paths and what they are; each layer first takes away, then puts."""
    now: dict[str, str] = {}
    for changes in layers:
        for what, path in changes:
            doomed = {"gone": (path,), "opaque": ()}.get(what)
            if doomed is not None:
                now = {
                    each: kind for each, kind in now.items() if each not in doomed and not each.startswith(f"{path}/")
                }
        for what, path in changes:
            if what == "opaque" or what == "gone":
                continue
            for each in list(now):
                if each.startswith(f"{path}/") and what == "file":
                    del now[each]
            for number in range(1, path.count("/") + 1):
                now["/".join(path.split("/")[:number])] = "dir"
            now[path] = what
    return now


def is_sound(layers: list[list[tuple[str, str]]]) -> bool:
    """Tell whether no layer has a file below a file, or hides and makes at one place: tools make no such layers."""
    for number, changes in enumerate(layers):
        kinds = {path: what for what, path in changes}
        if len(kinds) < len(changes):
            return False
        below = model_of(layers[:number])
        for path, what in kinds.items():
            for other, kind in {**below, **kinds}.items():
                if path.startswith(f"{other}/") and (kind in ("file", "gone") or what in ("gone", "opaque")):
                    return False
            if what == "opaque" and below.get(path) != "dir":
                return False
            if what == "gone" and any(each.startswith(f"{path}/") for each in kinds):
                return False
    return True


@settings(max_examples=300, deadline=None)
@given(st.lists(CHANGES, min_size=1, max_size=3).filter(is_sound))
def test_it_is_as_on_paper(layers: list[list[tuple[str, str]]]) -> None:
    items = []
    for changes in layers:
        layer = []
        for what, path in changes:
            above, _, name = path.rpartition("/")
            made = {
                "file": file(path),
                "dir": directory(path),
                "gone": file(f"{above}/.wh.{name}"),
                "opaque": file(f"{path}/.wh..wh..opq"),
            }
            layer.append(made[what])
        items.append(layer)
    tree = merged(*items)
    found = {path.decode(): "dir" if node.kind is Kind.DIRECTORY else "file" for path, node in tree.walk()}
    assert found == model_of(layers)
