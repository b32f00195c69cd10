"""A run for programs: one JSON document, described in docs/bench.md. Numbers are not rounded."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from hearth.bench.result import Figures, Result, Verdict
from hearth.bench.run import Run
from hearth.bench.yardsticks import Reading

SCHEMA = 1


def render(run: Run) -> str:
    """Give the document's text, ending in a newline."""
    return json.dumps(document(run), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def document(run: Run) -> dict[str, Any]:
    """Give the document as plain values."""
    return {
        "schema": SCHEMA,
        "version": run.version,
        "started_at": run.started_at.isoformat(),
        "quick": run.effort.quick,
        "host": asdict(run.host),
        "yardsticks": [_reading(reading) for reading in run.readings],
        "rows": [_result(result) for result in run.results],
        "summary": {verdict.value: run.count(verdict) for verdict in Verdict},
    }


def _reading(reading: Reading) -> dict[str, Any]:
    return {
        "name": reading.yardstick.name,
        "what": reading.yardstick.what,
        "unit": reading.unit,
        "figures": _figures(reading.figures),
        "reason": reading.reason,
    }


def _result(result: Result) -> dict[str, Any]:
    return {
        "name": result.row.name,
        "what": result.row.what,
        "verdict": result.verdict.value,
        "unit": result.unit,
        "figures": _figures(result.figures),
        "reference": {"what": result.row.reference, "figures": _figures(result.reference)},
        "ratio": result.ratio,
        "goals": [
            {
                "quantity": judged.goal.quantity.value,
                "bound": "at_least" if judged.goal.is_floor else "at_most",
                "limit": judged.goal.limit,
                "value": judged.value,
                "met": judged.met,
            }
            for judged in result.judged
        ],
        "reason": result.reason,
        "note": result.note,
    }


def _figures(figures: Figures | None) -> dict[str, Any] | None:
    return None if figures is None else asdict(figures)
