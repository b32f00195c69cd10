"""Names the daemon makes are names it would take."""

from __future__ import annotations

from hearth.model import check_name
from hearth.server.names import FIRST, SECOND, random_name


def test_every_name_is_a_name() -> None:
    for first in FIRST:
        for second in SECOND:
            check_name(f"{first}-{second}-0a1f")
    check_name(random_name())


def test_there_are_as_many_as_promised() -> None:
    assert (len(set(FIRST)), len(set(SECOND))) == (32, 32)
    assert len({random_name() for _ in range(200)}) > 190
