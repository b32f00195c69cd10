"""Levels of single loggers: read from the command line, and kept by what logs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hearth.server.logs import Levels, levels_of
from hearth.settings.kinds import Level

SCRIPT = """
import structlog
from hearth.server.logs import Levels, configure
configure("json", Levels(everybody="warning", of={"a.b": "debug", "a.b.c": "error"}))
for name in ("a", "a.b", "a.b.c", "a.b.d", "z"):
    log = structlog.get_logger(name)
    log.debug("d"), log.info("i"), log.warning("w"), log.error("e")
"""


def test_the_last_of_a_name_counts() -> None:
    said = [Level().read(text) for text in ("error", "hearth.guest=info", "debug", "hearth.guest=warning")]
    assert levels_of(said) == Levels(everybody="debug", of={"hearth.guest": "warning"})
    assert levels_of([]) == Levels()


@pytest.mark.parametrize("text", ["", "loud", "=debug", "hearth.guest=", "hearth.guest=loud", "a b=debug", "DEBUG2"])
def test_what_is_no_level_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="none of debug, info, warning, error"):
        Level().read(text)


@pytest.mark.parametrize(("text", "level"), [("INFO", "info"), ("WARN", "warning"), ("Critical", "error")])
def test_levels_may_be_spelled_as_other_programs_do(text: str, level: str) -> None:
    assert Level().read(text) == ("", level)


def test_a_logger_and_those_below_it_have_a_level_of_their_own() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True)
    told: dict[str, str] = {}
    for line in done.stderr.splitlines():
        entry = json.loads(line)
        told[entry["logger"]] = told.get(entry["logger"], "") + entry["event"]
    assert told == {"a": "we", "a.b": "diwe", "a.b.c": "e", "a.b.d": "diwe", "z": "we"}
