from __future__ import annotations

import pytest

from hearth.network.patience import ESTABLISHED_S, LONGEST_PROBE_S, Patience

SCRIPTS = [
    ("nobody answers for long", "ffffff", [0.05, 0.1, 0.2, 0.4, 0.4, 0.4, 0.4]),
    ("a guest that answered once may be slow", "ffss", [0.05, 0.1, 0.2, ESTABLISHED_S, ESTABLISHED_S]),
    ("a guest that stalls is not taken for one that boots", "sff", [0.05, *[ESTABLISHED_S] * 3]),
]


@pytest.mark.parametrize(("story", "script", "timeouts_s"), SCRIPTS)
def test_how_long_each_attempt_may_take(story: str, script: str, timeouts_s: list[float]) -> None:
    patience = Patience()
    seen = [patience.timeout_s]
    for letter in script:
        patience = patience.after_success() if letter == "s" else patience.after_failure()
        seen.append(patience.timeout_s)
    assert seen == pytest.approx(timeouts_s), story


def test_no_probe_waits_for_the_kernels_retransmission() -> None:
    assert LONGEST_PROBE_S < 1.0
