"""What a new sandbox may be given before it is its user's, by table."""

from __future__ import annotations

import pytest

from hearth.bounds import MAX_FILES, MAX_FILES_BYTES, MAX_INIT_BYTES, MAX_INIT_COMMANDS
from hearth.errors import InvalidInput
from hearth.outfit import NO_OUTFIT, GuestFile, Outfit, argv_of, check_outfit

FILE = GuestFile(guest_path="/etc/motd", content=b"x")


def file(path: str, *, mode: str | None = None) -> Outfit:
    return Outfit(files=[FILE, GuestFile(guest_path=path, content=b"x", mode=mode)])


@pytest.mark.parametrize(
    "outfit",
    [
        NO_OUTFIT,
        file("/a"),
        file("/a/b c/ü", mode="0755"),
        file("/a", mode="755"),
        Outfit(init=["true", ("a", "b", "")], init_timeout_s=1),
        Outfit(files=[GuestFile(guest_path="/a", content=b"x" * MAX_FILES_BYTES)]),
        Outfit(init=["x" * (MAX_INIT_BYTES - 9)]),
    ],
)
def test_what_can_be_is_taken(outfit: Outfit) -> None:
    check_outfit(outfit)


@pytest.mark.parametrize(
    ("outfit", "field"),
    [
        (file("etc/motd"), "files[1].guest_path"),
        (file("/"), "files[1].guest_path"),
        (file("/etc/"), "files[1].guest_path"),
        (file("/a/../b"), "files[1].guest_path"),
        (file("/a\0b"), "files[1].guest_path"),
        (file("/" + "ü" * 2048), "files[1].guest_path"),
        (file("/etc/motd"), "files[1].guest_path"),
        (file("/a", mode="rwx"), "files[1].mode"),
        (file("/a", mode="08"), "files[1].mode"),
        (file("/a", mode="07777777"), "files[1].mode"),
        (Outfit(files=[FILE] * (MAX_FILES + 1)), "files"),
        (Outfit(files=[GuestFile(guest_path="/a", content=b"x" * (MAX_FILES_BYTES + 1))]), "files"),
        (Outfit(init=["true", "  "]), "init[1]"),
        (Outfit(init=[()]), "init[0]"),
        (Outfit(init=[("", "x")]), "init[0]"),
        (Outfit(init=["a\0b"]), "init[0]"),
        (Outfit(init=["true"] * (MAX_INIT_COMMANDS + 1)), "init"),
        (Outfit(init=["x" * MAX_INIT_BYTES]), "init"),
        (Outfit(init_timeout_s=0.5), "init_timeout_s"),
        (Outfit(init_timeout_s=float("nan")), "init_timeout_s"),
    ],
)
def test_what_cannot_be_is_refused_by_its_name(outfit: Outfit, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_outfit(outfit)
    assert refused.value.field == field
    assert field in refused.value.details


def test_a_line_is_the_shells_and_a_list_is_a_program() -> None:
    assert argv_of("echo $A; true") == ["/bin/sh", "-c", "echo $A; true"]
    assert argv_of(("echo", "$A")) == ["echo", "$A"]


def test_contents_stay_out_of_texts() -> None:
    assert "hidden" not in repr(Outfit(files=[GuestFile(guest_path="/a", content=b"hidden")]))
