"""Which archive a host uses, from its os-release."""

from __future__ import annotations

import pytest

from hearth.errors import HostUnfit
from hearth.image.release import Release, parse_release


@pytest.mark.parametrize(
    ("fields", "release"),
    [
        ({"ID": "debian", "VERSION_CODENAME": "bookworm"}, ("debian", "debian", "bookworm")),
        ({"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_CODENAME": "noble"}, ("ubuntu", "ubuntu", "noble")),
        (
            {
                "ID": "linuxmint",
                "ID_LIKE": "ubuntu debian",
                "VERSION_CODENAME": "wilma",
                "UBUNTU_CODENAME": "noble",
            },
            ("linuxmint", "ubuntu", "noble"),
        ),
        ({"ID": "raspbian", "ID_LIKE": "debian", "VERSION_CODENAME": "bookworm"}, ("raspbian", "debian", "bookworm")),
    ],
)
def test_archive_is_that_of_the_nearest_known_relative(fields: dict[str, str], release: tuple[str, str, str]) -> None:
    name, family, codename = release
    assert parse_release(fields) == Release(id=name, family=family, codename=codename)


@pytest.mark.parametrize("fields", [{}, {"ID": "fedora", "VERSION_CODENAME": "x"}, {"ID": "debian"}])
def test_other_systems_are_refused_with_what_they_say_they_are(fields: dict[str, str]) -> None:
    with pytest.raises(HostUnfit, match=fields.get("ID", "linux")):
        parse_release(fields)
