"""`hearth provision`: fills a volume from a golden image, and draws how far it is."""

from __future__ import annotations

import argparse

from hearth.api.event_schemas import JobView
from hearth.api.provision_schemas import ProvisionForecast
from hearth.cli.arguments import add_json
from hearth.cli.job_progress import follow, ordering
from hearth.cli.show import duration, show_json, show_table, size
from hearth.cli.volumes import read_size
from hearth.sdk.client import Client
from hearth.sdk.provision_calls import ProvisionOptions

MIB_PER_GIB = 1024
GROWTHS = ("none", "table", "partition", "filesystem")
"""Each with what is before it."""
CHOICES = {"image_type": ("qcow2", "raw"), "mode": ("auto", "copy", "clone")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("image", help="s3://BUCKET/OBJECT, or a URL of a place that the operator lists")
    parser.add_argument("volume", help="what the volume is to be called")
    parser.add_argument("--size", required=True, metavar="SIZE", help="of the volume: 10G, 512M")
    parser.add_argument(
        "--type", dest="image_type", choices=CHOICES["image_type"], default="qcow2", help="of the image"
    )
    parser.add_argument("--mode", choices=CHOICES["mode"], default="auto", help="how it is filled (default: auto)")
    parser.add_argument("--pool", help="file, lvm, or a pool of libvirt's (default: the daemon's)")
    parser.add_argument("--checksum", metavar="SHA256", help="what the image must have (default: OBJECT.sha256 tells)")
    parser.add_argument("--correlation-id", metavar="ID", help="your own name for this, in the job and in the log")
    parser.add_argument("--webhook", metavar="URL", help="is called, signed, when the volume is there or will not be")
    parser.add_argument("--webhook-progress", action="store_true", help="call it at each step, too")
    parser.add_argument("--grow", choices=GROWTHS, default="table", help="what takes the room beyond the image")
    parser.add_argument("--verify", action="store_true", help="read the volume again and compare it with its image")
    parser.add_argument("--follow", action="store_true", help="wait until it is there, and draw how far it is")
    parser.add_argument("--dry-run", action="store_true", help="tell what that would come to, and do nothing")
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    size_gb = read_size(arguments.size) / MIB_PER_GIB
    options: ProvisionOptions = {"image_type": arguments.image_type, "mode": arguments.mode}
    options["grow"], options["verify"] = arguments.grow, arguments.verify
    if arguments.pool is not None:
        options["pool"] = arguments.pool
    if arguments.checksum is not None:
        options["checksum"] = arguments.checksum
    if arguments.correlation_id is not None:
        options["correlation_id"] = arguments.correlation_id
    if arguments.webhook is not None:
        options["webhook_url"] = arguments.webhook
        options["webhook_progress"] = arguments.webhook_progress
    with Client() as client:
        given = (arguments.image, arguments.volume, size_gb)
        if arguments.dry_run:
            return _forecast(client.provisioning.forecast(*given, **options), json=arguments.json)
        with ordering():
            job = client.provisioning.start(*given, **options)
        if not arguments.follow:
            return _begun(job.job, json=arguments.json)
        follow(job)
        return _filled(job.job, json=arguments.json)


def _begun(job: JobView, *, json: bool) -> int:
    if json:
        show_json(job)
    else:
        print(job.job_id)
    return 0


def _filled(job: JobView, *, json: bool) -> int:
    if json:
        show_json(job)
    else:
        print(job.volume_path or job.subject)
    return 0


def _forecast(forecast: ProvisionForecast, *, json: bool) -> int:
    if json:
        show_json(forecast)
        return 0
    rows = [
        ("volume", f"{forecast.volume_name} in {forecast.pool}"),
        ("replaces", "a volume of that name" if forecast.replaces else "nothing"),
        ("image", size(forecast.image_size_bytes)),
        ("its disk", _size(forecast.virtual_size_bytes)),
        ("checksum", forecast.checksum or "nobody tells"),
        ("in the cache", "yes" if forecast.is_cached else "no"),
        ("to fetch", size(forecast.bytes_to_fetch)),
        ("to write", _size(forecast.bytes_to_write)),
        ("takes about", _time(forecast.estimate_s)),
        ("by", f"{forecast.strategy}: {forecast.why}"),
    ]
    show_table(("of this order", "it is"), rows)
    return 0


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "known when the like was done"
    return "a moment" if seconds < 1 else duration(seconds)


def _size(count: int | None) -> str:
    return "known when it is here" if count is None else size(count)
