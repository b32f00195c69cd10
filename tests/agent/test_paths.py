"""What file services share."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hearth.agent.files.paths import first_names


@given(st.sets(st.integers(min_value=0, max_value=99), max_size=40), st.integers(min_value=1, max_value=8))
def test_the_first_names_are_those_of_the_sorted_list(numbers: set[int], limit: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for number in numbers:
            (Path(directory) / f"{number:02}").touch()
        assert first_names(directory, limit) == ([f"{n:02}" for n in sorted(numbers)][:limit], len(numbers))
