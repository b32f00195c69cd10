"""The prober: takes a list of probes, carries them out one after the other, and is over after its time.

It runs on the guest's own Python 3 and needs nothing else; the modules beside it are carried in with it.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

from hearth.attack.guest import calls, channel, floods, shots, witness
from hearth.attack.guest.report import outcome, say

PACE_S = 0.06
"""Between probes: a host tells of 20 refusals a second, and each of ours shall be told of."""
ACTIONS: dict[str, Callable[[str, str, dict[str, Any]], None]] = {
    "dial": calls.dial,
    "scan": calls.scan,
    "ask": calls.ask,
    "names": calls.names,
    "shoot": shots.shoot,
    "speak to agent": channel.speak_to_agent,
    "crowd agent": channel.crowd_agent,
    "become agent": channel.become_agent,
    "flows": floods.flows,
    "questions": floods.questions,
    "nonsense": floods.nonsense,
    "console": floods.console,
    "stand": witness.stand,
}


def work(plan: dict[str, Any]) -> None:
    """Carry out ``plan["probes"]``: id → what to do and how; ended by SIGALRM after ``plan["seconds"]``."""
    signal.alarm(plan["seconds"])
    for each in plan["probes"]:
        try:
            ACTIONS[each["do"]](plan["run"], each["id"], each["how"])
        except Exception as error:  # noqa: BLE001 - one probe that fails must not be the last
            outcome(each["id"], "could not", f"{type(error).__name__}: {error}")
        time.sleep(PACE_S)
    say(done=len(plan["probes"]))
