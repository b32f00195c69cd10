"""`doctor`: looks at this host and prints the findings as one JSON object, for the CLI to show. Needs no daemon."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import msgspec

from hearth.api.reports import Check, DoctorReport
from hearth.config import DataDirectory, ProvisioningSettings, load_data_directory
from hearth.control.doctor import NOTHING_TO_DO, Status, findings, in_user_mode
from hearth.control.net_trial import try_networks
from hearth.control.provisioning.libvirt_report import libvirt_pools
from hearth.control.provisioning.volume_group import volume_group
from hearth.control.setup import PROBE_TAG, report_of_engine
from hearth.errors import HearthError
from hearth.host.facts import gather
from hearth.server.config_tool import examine as examine_settings
from hearth.server.logs import configure
from hearth.settings.loading import Source, settings_of
from hearth.settings.options import load_settings

CONFIGURATION = "configuration"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `doctor` takes."""
    parser.add_argument("--config", metavar="FILE", type=Path, help="file of settings, as 'serve' takes it")
    parser.add_argument("--json", action="store_true", help="print the report as JSON (the only form)")


def run(arguments: argparse.Namespace) -> int:
    """Print the report; the findings, not the status, tell how the host fares."""
    configure("console", "warning")
    check, data, provisioning = configuration(arguments.config)
    report = asyncio.run(examine(data, provisioning))
    report = DoctorReport(checks=[check, *report.checks])
    sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
    sys.stdout.buffer.flush()
    return 0


def configuration(chosen: Path | None) -> tuple[Check, DataDirectory, ProvisioningSettings]:
    """Judge what `serve` would be told here; gives what it would take for data and volumes, or what is usual."""
    try:
        loaded = load_settings(argparse.Namespace(config=chosen))
        examine_settings(loaded)
    except HearthError as error:
        finding = f"{error.brief}: {error.details}" if error.details else error.brief
        check = Check(name=CONFIGURATION, status=Status.FAILED.value, finding=finding, resolution=error.resolution)
        return check, load_data_directory(), ProvisioningSettings()
    said = sum(each.source is not Source.DEFAULT for each in loaded.said.values())
    finding = f"{loaded.file or 'no file'}; {said} settings are not the default"
    check = Check(name=CONFIGURATION, status=Status.OK.value, finding=finding, resolution=NOTHING_TO_DO)
    data = loaded.arguments.data
    provisioning = settings_of(loaded.arguments).provisioning
    return check, DataDirectory(root=data) if data else load_data_directory(), provisioning


async def examine(data: DataDirectory, provisioning: ProvisioningSettings) -> DoctorReport:
    """Look at the host; where images are there, this tries the accelerator, which takes a boot the first time."""
    facts, engine = await gather(data.root, PROBE_TAG), await report_of_engine(data)
    networks = None if facts.namespace_obstacle or in_user_mode(facts) else await try_networks(PROBE_TAG)
    return DoctorReport(
        checks=[
            Check(name=each.name, status=each.status.value, finding=each.found, resolution=each.advice)
            for each in (
                *findings(facts, engine, networks),
                *await volume_group(provisioning),
                *await libvirt_pools(provisioning),
            )
        ]
    )
