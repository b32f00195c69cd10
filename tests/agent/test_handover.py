"""The configuration that outlives an agent, and whether it may be believed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hearth.agent.handover import Handover


@pytest.fixture
def handover() -> Iterator[Handover]:
    made = Handover()
    yield made
    made.close()


def test_at_first_there_is_none_and_nothing_is_half_done(handover: Handover) -> None:
    assert handover.configuration() is None
    assert handover.is_settled()


def test_the_last_one_is_kept_and_a_new_one_unsettles_it_until_it_is_kept_itself(handover: Handover) -> None:
    for payload in (b"first, and longer", b"second", b"3" * 100_000):
        handover.unsettle()
        assert not handover.is_settled()
        handover.keep_configuration(payload)
        assert handover.is_settled()
        assert handover.configuration() == payload
    handover.unsettle()
    handover.unsettle()
    assert handover.configuration() == b"3" * 100_000
    assert not handover.is_settled()


def test_a_first_configuration_that_never_ended_is_none_and_unsettled(handover: Handover) -> None:
    handover.unsettle()
    assert handover.configuration() is None
    assert not handover.is_settled()
