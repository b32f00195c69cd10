"""``hearth bench``: measures this host, row by row, against goals and against what the host can do without hearth."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import structlog
from rich.console import Console

from hearth.bench import as_json, as_picture, as_table
from hearth.bench.result import Verdict
from hearth.bench.run import Run, measure_all, new_run
from hearth.bench.samples import Effort
from hearth.bench.table import ROWS, choose
from hearth.errors import InvalidInput

DONE, ROW_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
STDOUT = "-"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report: 0 all measured, whatever the verdicts; 1 a row failed; 2 wrong usage; 130 interrupted."""
    arguments = build_parser().parse_args(argv)
    try:
        rows = choose(arguments.rows, full=arguments.full or arguments.list)
    except InvalidInput as error:
        sys.stderr.write(f"hearth: {error.brief}: {error.details}\n  {error.resolution}\n")
        return USAGE
    if arguments.list:
        for row in rows:
            sys.stdout.write(f"{row.name:20} {' and '.join(map(str, row.goals)):24} {row.what}\n")
        return DONE
    tempfile.gettempdir()  # tries it out with a file when first asked, which an interruption would leave there
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    _log_to_stderr()
    run = new_run(Effort(quick=arguments.quick))
    try:
        measure_all(run, rows, _announce)
        status = ROW_FAILED if run.count(Verdict.FAILED) else DONE
    except KeyboardInterrupt:
        sys.stderr.write(f"hearth: interrupted, {len(run.results)} of {len(rows)} rows measured\n")
        status = INTERRUPTED
    try:
        _report(run, json_to=arguments.json, picture_to=arguments.picture)
    except OSError as error:
        sys.stderr.write(f"hearth: the report cannot be written: {error}\n")
        return ROW_FAILED
    return status


def build_parser() -> argparse.ArgumentParser:
    """Declare the command line."""
    parser = argparse.ArgumentParser(prog="hearth bench", description=__doc__.partition(": ")[2], allow_abbrev=False)
    parser.add_argument("rows", metavar="ROW", nargs="*", help=f"rows to measure: {', '.join(r.name for r in ROWS)}")
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes: fewer samples")
    parser.add_argument("--full", action="store_true", help="also the rows that take minutes")
    parser.add_argument("--json", metavar="FILE", help="write JSON for programs; - is stdout, instead of the table")
    parser.add_argument("--picture", metavar="FILE", type=Path, help="draw the rows against their goals (SVG)")
    parser.add_argument("--list", action="store_true", help="list the rows and their goals, measure nothing")
    return parser


def _report(run: Run, *, json_to: str | None, picture_to: Path | None) -> None:
    if json_to == STDOUT:
        sys.stdout.write(as_json.render(run))
    else:
        console = Console()
        console.width = max(console.width, as_table.MIN_WIDTH)
        as_table.show(run, console)
        if json_to is not None:
            Path(json_to).write_text(as_json.render(run), encoding="utf-8")
    if picture_to is not None:
        picture_to.write_text(as_picture.render(run), encoding="utf-8")


def _log_to_stderr() -> None:
    """Keep the log of what we use out of the report: warnings alone, on stderr."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _announce(what: str) -> None:
    sys.stderr.write(f"{what}\n")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a second one would leave machines behind
    _announce("ending what was started")
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
