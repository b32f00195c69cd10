"""`hearth volume`: disks with a name that outlive sandboxes: makes, lists, shows, grows, copies, attaches, deletes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from hearth.api.volume_schemas import VolumeView
from hearth.cli.arguments import add_actions, add_json
from hearth.cli.consent import add_yes, agreed
from hearth.cli.each import to_each
from hearth.cli.exits import FAILED
from hearth.cli.show import age, moment, show_done, show_json, show_table, size
from hearth.cli.volumes import read_place, read_size
from hearth.sdk.client import Client
from hearth.sdk.volume_calls import LinkOptions

COLUMNS = ("name", "id", "size", "used", "attached", "age")
SIZE = "as 512M, 20G or 1T; a plain number is MiB"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    actions = add_actions(parser)

    def action(name: str, text: str, *words: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=text, description=text)
        for word in words:
            made.add_argument(word.partition(" ")[0], help=word.partition(" ")[2])
        return made

    add_json(action("list", "list volumes and who has them (the default)"), again=True)
    add_json(action("inspect", "show one volume", "volume id or name"), again=True)
    create = action("create", "make an empty volume with a file system", "name a name of your own", f"size {SIZE}")
    add_json(create, again=True)
    link = action(
        "link", "make a volume of a provisioned one", "name of the volume", "provisioned its name in its pool"
    )
    link.add_argument("--pool", help="where it is (default: the daemon's usual one)")
    link.add_argument("--partition", type=int, metavar="N", help="the one to be mounted (default: found out)")
    link.add_argument("--owner", help="whose the volume will be (default: yours)")
    add_json(link, again=True)
    add_json(action("resize", "grow a volume that no sandbox has", "volume id or name", f"size {SIZE}"), again=True)
    clone = action("clone", "copy a volume that no sandbox writes to", "volume id or name", "name of the copy")
    add_json(clone, again=True)
    attach = action(
        "attach",
        "mount a volume in a sandbox that runs or sleeps",
        "sandbox id or name",
        "volume NAME:/path, writable and for it alone, or NAME:/path:ro, together with others",
    )
    add_json(attach, again=True)
    detach = action(
        "detach", "unmount a volume and take it out of a sandbox", "sandbox id or name", "volume id or name"
    )
    add_json(detach, again=True)
    delete = action("delete", "delete volumes that no sandbox has, for good")
    delete.add_argument("volume", nargs="+", help="id or name")
    add_yes(delete)
    add_json(delete, again=True)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        match arguments.action:
            case "create":
                return _show_made(client.create_volume(arguments.name, read_size(arguments.size)), arguments)
            case "link":
                return _show_made(_link(client, arguments), arguments)
            case "resize":
                return _show_made(client.resize_volume(arguments.volume, read_size(arguments.size)), arguments)
            case "clone":
                return _show_made(client.clone_volume(arguments.volume, arguments.name), arguments)
            case "inspect":
                return _inspect(client.volume(arguments.volume), arguments)
            case "attach":
                return _attach(client, arguments)
            case "detach":
                client.detach_volume(arguments.sandbox, arguments.volume)
                show_done(arguments.volume, json=arguments.json)
                return 0
            case "delete":
                return _delete(client, arguments)
            case _:
                return _list(client, arguments)


def field_rows(volume: VolumeView) -> Iterator[tuple[str, str]]:
    """Give what people see of one volume."""
    yield "id", volume.id
    yield "name", volume.name
    yield "state", volume.state
    yield "size", f"{volume.size_mb} MiB"
    yield "used on the host", _used(volume)
    yield "file system", volume.fs
    for user in volume.attached:
        mode = "read-only" if user.read_only else "read-write"
        yield "attached", f"{user.sandbox_name} ({user.sandbox_id}) at {user.mount}, {mode}"
    if volume.provisioned is not None:
        yield "is", f"{volume.provisioned} in pool {volume.pool}"
    yield "created", moment(volume.created_at)


def _link(client: Client, arguments: argparse.Namespace) -> VolumeView:
    options: LinkOptions = {}
    if arguments.pool is not None:
        options["pool"] = arguments.pool
    if arguments.partition is not None:
        options["partition"] = arguments.partition
    if arguments.owner is not None:
        options["owner"] = arguments.owner
    return client.link_volume(arguments.name, arguments.provisioned, **options)


def _show_made(volume: VolumeView, arguments: argparse.Namespace) -> int:
    if arguments.json:
        show_json(volume)
    else:
        print(volume.name)
    return 0


def _inspect(volume: VolumeView, arguments: argparse.Namespace) -> int:
    if arguments.json:
        show_json(volume)
    else:
        show_table(("field", "value"), list(field_rows(volume)))
    return 0


def _list(client: Client, arguments: argparse.Namespace) -> int:
    volumes = client.volumes()
    if arguments.json:
        show_json(volumes)
    else:
        show_table(COLUMNS, [_row(each) for each in volumes])
    return 0


def _attach(client: Client, arguments: argparse.Namespace) -> int:
    place = read_place(arguments.volume, what="volume")
    mounted = client.attach_volume(
        arguments.sandbox, place["name"], place["mount"], read_only=place.get("read_only", False)
    )
    if arguments.json:
        show_json(mounted)
    return 0


def _delete(client: Client, arguments: argparse.Namespace) -> int:
    names = ", ".join(arguments.volume)
    if not agreed(arguments, f"Delete {names}", deed="deleting", loss=f"{names} would be lost for good"):
        sys.stderr.write("hearth: nothing was deleted\n")
        return FAILED
    return to_each(arguments.volume, client.delete_volume, json=arguments.json)


def _row(volume: VolumeView) -> tuple[str, ...]:
    users = ", ".join(user.sandbox_name + (" (ro)" if user.read_only else "") for user in volume.attached)
    return (volume.name, volume.id, f"{volume.size_mb} MiB", _used(volume), users, age(volume.created_at))


def _used(volume: VolumeView) -> str:
    return "unknown" if volume.allocated_bytes is None else size(volume.allocated_bytes)
