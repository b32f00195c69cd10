"""How hearth's own failures of an exec are told from the command's."""

from __future__ import annotations

import pytest

from hearth.cli.exits import exec_status
from hearth.errors import GuestFailed, HearthError, NotFound, StartFailed, TimedOut


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TimedOut("x"), 124),
        (NotFound("no such sandbox"), 125),
        (GuestFailed("x"), 125),
        (StartFailed("x", details="start: Permission denied: '/etc/passwd'"), 126),
        (StartFailed("x", details="start: No such file or directory: 'nope'"), 127),
    ],
)
def test_each_failure_has_the_status_that_shells_know(error: HearthError, status: int) -> None:
    assert exec_status(error) == status
