"""`hearth image cache`: the golden images that are kept."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hearth.api.provision_schemas import CachedImage
from hearth.cli.arguments import add_json
from hearth.cli.consent import add_yes, agreed
from hearth.cli.each import to_each
from hearth.cli.job_progress import follow
from hearth.cli.show import age, show_json, show_table, size
from hearth.errors import InvalidInput
from hearth.sdk.client import Client

COLUMNS = ("key", "format", "size", "disk", "used", "kept", "url")
SHOWN_DIGITS = 12


def add_cache_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `hearth image cache` takes."""
    add_json(parser)
    actions = parser.add_subparsers(dest="deed", metavar="ACTION")
    listing = actions.add_parser(
        "list", help="list them, the last used first (the default)", description="list golden images"
    )
    add_json(listing, again=True)
    text = "fetch one before it is needed"
    fetch = actions.add_parser("fetch", help=text, description=text)
    fetch.add_argument("image", help="s3://BUCKET/OBJECT, or another URL")
    fetch.add_argument("--type", dest="image_type", choices=("qcow2", "raw"), default="qcow2", help="of the image")
    fetch.add_argument("--checksum", metavar="SHA256", help="what it must have (default: OBJECT.sha256 tells)")
    add_json(fetch, again=True)
    for name, text in (
        ("pin", "keep images for good"),
        ("unpin", "let images go when room is needed"),
        ("delete", "remove images that nobody uses"),
    ):
        deed = actions.add_parser(name, help=text, description=text)
        deed.add_argument("key", nargs="+", help="SHA-256, or its start")
        add_json(deed, again=True)
        if name == "delete":
            add_yes(deed)


def run_cache(client: Client, arguments: argparse.Namespace) -> int:
    """Carry `hearth image cache` out."""
    if arguments.deed == "fetch":
        return _fetch(client, arguments)
    images = client.provisioning.images()
    deed = arguments.deed or "list"
    if deed == "list":
        return _list(images, json=arguments.json)
    keys = [_whole(key, images) for key in arguments.key]
    if deed == "delete":
        shown = ", ".join(key[:SHOWN_DIGITS] for key in keys)
        if not agreed(arguments, f"remove {shown}", deed="removing", loss=f"{shown} would have to be fetched again"):
            return 1
        return to_each(keys, client.provisioning.forget, json=arguments.json)
    return to_each(keys, lambda key: client.provisioning.pin(key, pinned=deed == "pin"), json=arguments.json)


def _fetch(client: Client, arguments: argparse.Namespace) -> int:
    job = client.provisioning.fetch(arguments.image, image_type=arguments.image_type, checksum=arguments.checksum)
    follow(job)
    if arguments.json:
        show_json(job.job)
    return 0


def _list(images: Sequence[CachedImage], *, json: bool) -> int:
    if json:
        show_json(images)
    else:
        show_table(COLUMNS, [_row(image) for image in images])
    return 0


def _row(image: CachedImage) -> tuple[str, ...]:
    kept = "in use" if image.in_use else "pinned" if image.pinned else "-"
    return (
        image.key[:SHOWN_DIGITS],
        image.format,
        size(image.size_bytes),
        size(image.virtual_size_bytes),
        age(image.last_used_at),
        kept,
        image.url,
    )


def _whole(start: str, images: Sequence[CachedImage]) -> str:
    """Give the key that begins so; what no key begins with goes to the daemon as it is, which says so.

    Raises:
        InvalidInput: several begin so, or nothing is said, as by a variable that is not set.
    """
    alike = [image.key for image in images if image.key.startswith(start)]
    if start and len(alike) < 2:
        return alike[0] if alike else start
    raise InvalidInput(
        "invalid image",
        details=f"{len(alike)} keys begin with {start!r}" if start else "the key is empty",
        resolution="give more of the key: 'hearth image cache --json' shows it whole",
        field="key",
    )
