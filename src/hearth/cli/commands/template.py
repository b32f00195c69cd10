"""`hearth template`: descriptions of sandboxes to come: keeps, lists, shows, changes and deletes them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import cast

import msgspec

from hearth.api.template_schemas import TemplateView
from hearth.cli.arguments import add_actions, add_json
from hearth.cli.consent import add_yes, agreed
from hearth.cli.each import to_each
from hearth.cli.exits import FAILED
from hearth.cli.settings import add_settings, settings_of
from hearth.cli.show import age, moment, show_json, show_table, size
from hearth.sdk.client import Client
from hearth.sdk.template_calls import ChangeTemplateOptions

COLUMNS = ("name", "id", "image", "cpus", "memory", "disk", "age")
MIB = 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    actions = add_actions(parser)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=text, description=text)

    add_json(action("list", "list templates (the default)"), again=True)
    create = action("create", "keep a description of sandboxes to come, which is checked as 'hearth create' would")
    create.add_argument("name", help="a name of your own")
    add_settings(create)
    add_json(create, again=True)
    show = action("show", "show one template, but for the values of variables and the contents of files")
    show.add_argument("template", help="id or name")
    add_json(show, again=True)
    edit = action("edit", "change what a template says: each option that is given replaces what was said")
    edit.add_argument("template", help="id or name")
    edit.add_argument("--name", help="a new name")
    add_settings(edit)
    add_json(edit, again=True)
    delete = action("delete", "delete templates; sandboxes that were made of them stay")
    delete.add_argument("template", nargs="+", help="id or name")
    add_yes(delete)
    add_json(delete, again=True)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        match arguments.action:
            case "create":
                return _show_made(client.templates.create(arguments.name, **settings_of(arguments)), arguments)
            case "edit":
                changes = cast("ChangeTemplateOptions", settings_of(arguments))
                if arguments.name is not None:
                    changes["name"] = arguments.name
                return _show_made(client.templates.change(arguments.template, **changes), arguments)
            case "show":
                return _show(client.templates.get(arguments.template), arguments)
            case "delete":
                return _delete(client, arguments)
        templates = client.templates.every()
    if arguments.json:
        show_json(templates)
    else:
        show_table(COLUMNS, [_row(each) for each in templates])
    return 0


def _show_made(template: TemplateView, arguments: argparse.Namespace) -> int:
    if arguments.json:
        show_json(template)
    else:
        print(template.name)
    return 0


def _show(template: TemplateView, arguments: argparse.Namespace) -> int:
    if arguments.json:
        show_json(template)
    else:
        show_table(("what", "is"), list(_facts(template)))
    return 0


def _row(template: TemplateView) -> tuple[str, ...]:
    return (
        template.name,
        template.id,
        template.image or "",
        "" if template.cpus is None else str(template.cpus),
        "" if template.memory_mb is None else f"{template.memory_mb} MiB",
        "" if template.disk_size_mb is None else size(template.disk_size_mb * MIB),
        age(template.created_at),
    )


def _facts(template: TemplateView) -> Iterator[tuple[str, str]]:
    """Tell what a template says, a line for each thing; what it says nothing of is left out."""
    yield "name", template.name
    yield "id", template.id
    yield from _of_machine(template)
    if template.env_names:
        yield "variables", ", ".join(template.env_names)
    for key, value in template.labels.items():
        yield "label", f"{key}={value}"
    if template.net_policy is not None:
        yield "network", msgspec.json.encode(template.net_policy).decode()
    for volume in template.volumes:
        yield "volume", f"{volume.name} at {volume.mount}" + (" (read-only)" if volume.read_only else "")
    for new in template.new_volumes:
        yield "new volume", f"SANDBOX-{new.name}, {size(new.size_mb * MIB)}, at {new.mount}"
    for secret in template.secrets:
        yield "secret", f"{secret.name} as " + ("a file" if secret.file else f"${secret.env or secret.name}")
    for file in template.files:
        yield "file", f"{file.guest_path}, {file.size_bytes} bytes" + (f", mode {file.mode}" if file.mode else "")
    for command in template.init:
        yield "init", command if isinstance(command, str) else msgspec.json.encode(command).decode()
    if template.init_timeout_s is not None:
        yield "init may take", f"{template.init_timeout_s:g} s"
    yield "made", moment(template.created_at)
    if template.updated_at != template.created_at:
        yield "changed", moment(template.updated_at)


def _of_machine(template: TemplateView) -> Iterator[tuple[str, str]]:
    if template.image is not None:
        yield "image", template.image
    if template.cpus is not None:
        yield "cpus", str(template.cpus)
    if template.memory_mb is not None:
        yield "memory", f"{template.memory_mb} MiB"
    if template.disk_size_mb is not None:
        yield "disk", size(template.disk_size_mb * MIB)
    if template.keep_hot is not None:
        yield "keep hot", "yes" if template.keep_hot else "no"
    for name, seconds in (
        ("time to live", template.ttl_s),
        ("idle pause", template.idle_pause_s),
        ("idle stop", template.idle_stop_s),
    ):
        if seconds is not None:
            yield name, f"{seconds:g} s"


def _delete(client: Client, arguments: argparse.Namespace) -> int:
    names = ", ".join(arguments.template)
    if not agreed(arguments, f"Delete {names}", deed="deleting", loss=f"{names} would be lost for good"):
        sys.stderr.write("hearth: nothing was deleted\n")
        return FAILED
    return to_each(arguments.template, client.templates.delete, json=arguments.json)
