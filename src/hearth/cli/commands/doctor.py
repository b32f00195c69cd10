"""`hearth doctor`."""

from __future__ import annotations

import argparse
import sys

import msgspec

from hearth.api.reports import DoctorReport
from hearth.cli.arguments import add_json
from hearth.cli.daemon_tool import lines_of
from hearth.cli.exits import FAILED
from hearth.cli.show import show_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    text = b"".join(lines_of(["doctor", "--json"]))
    report = msgspec.json.decode(text, type=DoctorReport)
    if arguments.json:
        sys.stdout.write(msgspec.json.format(text, indent=2).decode().rstrip() + "\n")
    else:
        rows = [(check.status, check.name, check.finding, check.resolution) for check in report.checks]
        show_table(("", "check", "finding", "what to do"), rows)
    return FAILED if any(check.status == "failed" for check in report.checks) else 0
