"""Which names a volume may have."""

from __future__ import annotations

import pytest

from hearth.errors import InvalidInput
from hearth.volume.names import MAX_CHARACTERS, RESERVED_INFIXES, check_volume_name


@pytest.mark.parametrize(
    "name", ["a", "data", "Data-1", "a+b_c.d", ".hidden", "x" * MAX_CHARACTERS, "my-snapshot", "tmp"]
)
def test_what_lvm_takes_is_taken(name: str) -> None:
    assert check_volume_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("-rf", "option"),
        (".", "directory"),
        ("..", "directory"),
        ("../x", "characters"),
        ("a/b", "characters"),
        ("a b", "characters"),
        ("a\n", "characters"),
        ("a\0", "characters"),
        ("größe", "characters"),
        ("x" * (MAX_CHARACTERS + 1), "101 characters"),
        ("snapshot1", "reserved"),
        ("pvmove0", "reserved"),
        ("work.tmp", "unfinished"),
        *((f"a{infix}1", "reserved") for infix in RESERVED_INFIXES),
    ],
)
def test_what_lvm_or_a_shell_or_a_path_would_take_otherwise_is_refused_with_the_rule(name: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        check_volume_name(name, what="volume_name")
    assert caught.value.field == "volume_name"
    assert len(str(caught.value)) < 400
