"""Tables of what a document shows beside what was printed."""

from __future__ import annotations

import pytest
from tests.docs.expected import difference

SAME = [
    ("web\n", "web\n"),
    ("NAME STATE\nweb  running\n", "NAME   STATE\nweb    running\n\n"),
    ("...\n", ""),
    ("...\n", "one\ntwo\n"),
    ("one\n...\nfour\n", "one\ntwo\nthree\nfour\n"),
    ("sb-... running 5...\n", "sb-4k9d0x running 512 MiB\n"),
    ("", ""),
    ("(a|b)*\n", "(a|b)*\n"),
]
OTHER = [
    ("web\n", "dev\n"),
    ("", "something\n"),
    ("one\n", "one\ntwo\n"),
    ("one\n...\nfour\n", "one\nfive\n"),
    ("a.b\n", "axb\n"),
    ("sb-... running\n", "sb-1\nrunning\n"),
]


@pytest.mark.parametrize(("shown", "printed"), SAME)
def test_what_is_shown_may_be_printed(shown: str, printed: str) -> None:
    assert difference(shown, printed) is None


@pytest.mark.parametrize(("shown", "printed"), OTHER)
def test_what_is_shown_was_not_printed(shown: str, printed: str) -> None:
    told = difference(shown, printed)
    assert told is not None
    assert all(line in told for line in printed.splitlines())
