"""What the daemon's other subcommands print for the CLI: the findings of `doctor`, the progress of `setup`, as JSON."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct


class Check(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One finding about this host; ``resolution`` says what to do unless all is well."""

    name: str
    status: Literal["ok", "warning", "failed"]
    finding: str
    resolution: str = ""


class DoctorReport(Struct, frozen=True, kw_only=True):
    """One JSON object, printed by ``doctor --json``."""

    checks: list[Check]


class SetupEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of ``setup --json-lines``; ``percent`` is 0 to 100 where it is known, ``duration_s`` seconds."""

    step: str
    state: Literal["started", "progress", "done", "skipped", "failed"]
    message: str = ""
    percent: float | None = None
    duration_s: float | None = None
    resolution: str = ""
