"""How long the daemon has been up, in words."""

from __future__ import annotations

from datetime import timedelta

import pytest

from hearth.server.routes.health import spoken


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        (timedelta(), "0s"),
        (timedelta(seconds=59.9), "59s"),
        (timedelta(minutes=1), "1m 0s"),
        (timedelta(hours=25, seconds=5), "1d 1h 0m 5s"),
    ],
)
def test_uptime_is_said_without_leading_zeros(duration: timedelta, said: str) -> None:
    assert spoken(duration) == said
