"""How the daemon logs, seen from outside: a process that configures logging and says something."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import logging, structlog
from hearth.server.logs import configure
configure({form!r}, {level!r})
log = structlog.get_logger("x")
log.debug("quiet")
log.info("story", words="line\\nforged \\x1b[31m")
logging.getLogger("uvicorn.error").info("chatter")
logging.getLogger("asyncio").warning("from %s", "elsewhere")
def fail():
    token = "hk_in_a_variable"
    raise ValueError("broken")
try:
    fail()
except ValueError:
    log.exception("failed")
"""


def logged(form: str, level: str) -> str:
    script = SCRIPT.format(form=form, level=level)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == ""
    return done.stderr


def test_json_is_one_object_a_line_from_every_logger() -> None:
    entries = [json.loads(line) for line in logged("json", "info").splitlines()]
    assert [entry["event"] for entry in entries] == ["story", "from elsewhere", "failed"]
    assert all({"timestamp", "level"} <= set(entry) for entry in entries)
    assert "ValueError: broken" in entries[2]["exception"]


def test_the_level_is_kept() -> None:
    assert "quiet" in logged("json", "debug")
    assert "story" not in logged("json", "warning")


@pytest.mark.parametrize("form", ["console", "json"])
def test_nobody_writes_control_characters_into_the_log(form: str) -> None:
    text = logged(form, "info")
    assert "\x1b" not in text
    assert "\nforged" not in text
    assert "forged" in text


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_does_not_show_the_values_of_variables(form: str) -> None:
    text = logged(form, "info")
    assert "broken" in text
    assert "hk_in_a_variable" not in text
