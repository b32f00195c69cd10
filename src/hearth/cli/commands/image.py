"""`hearth image`: what sandboxes can be made of: lists it, pulls it from registries, makes it of archives and disks."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from hearth.api.image_schemas import ImageView
from hearth.cli.arguments import add_actions, add_json
from hearth.cli.consent import add_yes, agreed
from hearth.cli.each import to_each
from hearth.cli.golden import add_cache_arguments, run_cache
from hearth.cli.job_progress import follow, ordering
from hearth.cli.show import age, moment, show_json, show_table, size
from hearth.errors import InvalidInput
from hearth.sdk.client import Client
from hearth.sdk.image_calls import GoldenOptions, ImportOptions, PullOptions
from hearth.sdk.images import ImageJob

COLUMNS = ("name", "kind", "state", "size", "source", "sha256", "age")
SHOWN_DIGITS = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    actions = add_actions(parser)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=text, description=text)
        add_json(made, again=True)
        return made

    action("list", "list images (the default)")
    show = action("show", "show one image: where it came from, and what it says of programs")
    show.add_argument("image", help="id or name")
    _add_pull(action("pull", "pull an image from a registry"))
    _add_golden(action("golden", "make an image of the root file system in a golden image; for administrators"))
    bring = action("import", "make an image of an archive: docker save, OCI layout, or a file system's tar")
    bring.add_argument("archive", help="a file, or - for stdin; gzip, zstd, xz or not compressed")
    bring.add_argument("name", help="what to call the image")
    _add_common(bring)
    save = action("save", "make an image of a sandbox's disk")
    save.add_argument("sandbox", help="id or name")
    save.add_argument("name", help="what to call the image")
    delete = action("delete", "delete images; sandboxes made of them live on")
    delete.add_argument("image", nargs="+", help="id or name")
    add_yes(delete)
    cache = actions.add_parser("cache", help="golden images that are kept", description="golden images that are kept")
    add_cache_arguments(cache)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        match arguments.action:
            case "show":
                return _show(client.images.get(arguments.image), json=arguments.json)
            case "pull":
                options = _pull_options(arguments)
                with ordering():
                    job = client.images.pull(arguments.reference, **options)
                return _follow(client, job, arguments)
            case "golden":
                with ordering():
                    job = client.images.golden(arguments.source, arguments.name, **_golden_options(arguments))
                return _follow(client, job, arguments)
            case "import":
                return _import(client, arguments)
            case "save":
                return _name(client.images.save(arguments.sandbox, arguments.name), json=arguments.json)
            case "delete":
                return _delete(client, arguments)
            case "cache":
                return run_cache(client, arguments)
            case _:
                return _list(client, json=arguments.json)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--platform", help="such as linux/arm64 (default: this host's)")
    parser.add_argument("--shared", action="store_true", help="make it everybody's; for administrators")
    parser.add_argument("--detach", action="store_true", help="print the job and do not wait for it")


def _add_pull(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reference", help="[HOST[:PORT]/]PATH[:TAG][@DIGEST]; without a host from Docker Hub")
    parser.add_argument("--name", help="what to call the image (default: after its path and tag)")
    _add_common(parser)
    parser.add_argument("--username", help="who pulls, as the registry knows them")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from stdin")
    parser.add_argument("--secret", help="a secret of yours that holds USERNAME:PASSWORD")
    parser.add_argument("--insecure", action="store_true", help="speak without TLS, where the operator permits that")


def _add_golden(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="image", help="s3://BUCKET/OBJECT, another URL, or the key of one that is kept"
    )
    parser.add_argument("name", help="what to call the image")
    parser.add_argument("--type", dest="image_type", choices=("qcow2", "raw"), default="qcow2", help="of the object")
    parser.add_argument("--checksum", metavar="SHA256", help="what the object must have (default: OBJECT.sha256 tells)")
    parser.add_argument(
        "--partition", type=int, metavar="N", help="the one with the root file system (default: found out)"
    )
    parser.add_argument("--shared", action="store_true", help="make it everybody's")
    parser.add_argument("--detach", action="store_true", help="print the job and do not wait for it")


def _golden_options(arguments: argparse.Namespace) -> GoldenOptions:
    options: GoldenOptions = {"image_type": arguments.image_type, "shared": arguments.shared}
    if arguments.checksum is not None:
        options["checksum"] = arguments.checksum
    if arguments.partition is not None:
        options["partition"] = arguments.partition
    return options


def _pull_options(arguments: argparse.Namespace) -> PullOptions:
    options: PullOptions = {"insecure": arguments.insecure, "shared": arguments.shared}
    if arguments.name is not None:
        options["name"] = arguments.name
    if arguments.platform is not None:
        options["platform"] = arguments.platform
    if arguments.username is not None:
        options["username"] = arguments.username
    if arguments.secret is not None:
        options["secret"] = arguments.secret
    if arguments.password_stdin:
        options["password"] = sys.stdin.readline().rstrip("\r\n")
    return options


def _import(client: Client, arguments: argparse.Namespace) -> int:
    options: ImportOptions = {"shared": arguments.shared}
    if arguments.platform is not None:
        options["platform"] = arguments.platform
    if arguments.archive == "-":
        return _follow(client, client.images.import_(sys.stdin.buffer, arguments.name, **options), arguments)
    try:
        with Path(arguments.archive).open("rb") as archive:
            return _follow(client, client.images.import_(archive, arguments.name, **options), arguments)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InvalidInput(
            "the archive cannot be read", details=str(error), resolution="name a tar archive", field="archive"
        ) from error


def _follow(client: Client, job: ImageJob, arguments: argparse.Namespace) -> int:
    """Draw how far a job is, and print what came of it; an interruption ends the job, too."""
    if arguments.detach:
        if arguments.json:
            show_json(job.job)
        else:
            print(job.job.job_id)
        return 0
    follow(job)
    return _name(client.images.get(job.job.subject), json=arguments.json)


def _name(image: ImageView, *, json: bool) -> int:
    if json:
        show_json(image)
    else:
        print(image.name)
    return 0


def _delete(client: Client, arguments: argparse.Namespace) -> int:
    names = ", ".join(arguments.image)
    if not agreed(arguments, f"delete {names}", deed="deleting", loss=f"{names} would be lost for good"):
        return 1
    return to_each(arguments.image, client.images.delete, json=arguments.json)


def _list(client: Client, *, json: bool) -> int:
    images = client.images.list()
    if json:
        show_json(images)
        return 0
    show_table(COLUMNS, [_row(image) for image in images])
    return 0


def _row(image: ImageView) -> tuple[str, ...]:
    return (
        image.name,
        image.kind,
        image.state,
        size(image.disk_bytes),
        image.source or "-",
        image.sha256[:SHOWN_DIGITS],
        age(image.created_at),
    )


def _show(image: ImageView, *, json: bool) -> int:
    if json:
        show_json(image)
        return 0
    said = image.defaults
    rows = [
        ("id", image.id),
        ("name", image.name),
        ("kind", image.kind),
        ("state", image.state),
        ("owner", image.owner or "this host"),
        ("source", image.source or "-"),
        ("digest", image.digest or "-"),
        ("platform", image.platform or "-"),
        ("disk of a sandbox", size(image.size_bytes)),
        ("takes on disk", size(image.disk_bytes)),
        ("created", moment(image.created_at)),
    ]
    if said is not None:
        rows += [("user", said.user or "-"), ("working directory", said.working_dir or "-")]
        rows += [("entrypoint", " ".join(said.entrypoint) or "-"), ("cmd", " ".join(said.cmd) or "-")]
        rows += [("env", f"{name}={value}") for name, value in said.env.items()]
    show_table(("of the image", "it is"), rows)
    return 0
