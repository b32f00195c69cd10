"""`doctor`: looks at this host and prints the findings as one JSON object, for the CLI to show. Needs no daemon."""

from __future__ import annotations

import argparse
import asyncio
import sys

import msgspec

from hearth.api.reports import Check, DoctorReport
from hearth.config import DataDirectory, load_data_directory
from hearth.control.doctor import findings, in_user_mode
from hearth.control.net_trial import try_networks
from hearth.control.setup import PROBE_TAG, report_of_engine
from hearth.host.facts import gather
from hearth.server.logs import configure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `doctor` takes."""
    parser.add_argument("--json", action="store_true", help="print the report as JSON (the only form)")


def run(arguments: argparse.Namespace) -> int:
    """Print the report; the findings, not the status, tell how the host fares."""
    del arguments
    configure("console", "warning")
    report = asyncio.run(examine(load_data_directory()))
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()
    return 0


async def examine(data: DataDirectory) -> DoctorReport:
    """Look at the host; where images are there, this tries the accelerator, which takes a boot the first time."""
    facts, engine = await gather(data.root, PROBE_TAG), await report_of_engine(data)
    networks = None if facts.namespace_obstacle or in_user_mode(facts) else await try_networks(PROBE_TAG)
    return DoctorReport(
        checks=[
            Check(name=each.name, status=each.status.value, finding=each.found, resolution=each.advice)
            for each in findings(facts, engine, networks)
        ]
    )
