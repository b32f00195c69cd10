"""`hearth file`: reads, writes, lists, copies and deletes what is in a sandbox."""

from __future__ import annotations

import argparse
import base64
import sys

from hearth.api.file_schemas import FileView
from hearth.cli.arguments import add_actions, add_json
from hearth.cli.consent import add_yes, agreed
from hearth.cli.copying import copy_shown, read_place, show_file, write_stdin
from hearth.cli.descriptors import STDOUT, write_all
from hearth.cli.each import to_each
from hearth.cli.exits import FAILED, USAGE, show_misuse
from hearth.cli.show import moment, show_json, show_table
from hearth.errors import InvalidInput
from hearth.sdk.client import Client
from hearth.sdk.files import Files

COLUMNS = ("mode", "size", "modified", "name")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = add_actions(parser)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=text, description=text)
        add_json(made)
        return made

    def add_path(made: argparse.ArgumentParser, **more: str) -> None:
        made.add_argument("sandbox", help="id or name")
        made.add_argument("path", help="absolute, in the sandbox", **more)  # type: ignore[arg-type]

    read = action("read", "write a file to standard output, all of it or some lines or bytes")
    add_path(read)
    part = read.add_mutually_exclusive_group()
    part.add_argument("--lines", metavar="FIRST[:COUNT]", help="only lines, of which 1 is the first: 10, 10:5")
    part.add_argument("--bytes", metavar="FIRST[:COUNT]", help="only bytes, of which 0 is the first: 0:512")
    write = action("write", "write standard input to a file, as a whole or not at all")
    add_path(write)
    write.add_argument("--mode", metavar="OCTAL", help="its permissions, such as 0755 (default: as it has, or 0644)")
    add_path(action("ls", "list a directory"))
    add_path(action("stat", "show size, mode and kind of a file or directory"))
    copying = action("cp", "copy files to a sandbox, from one, or between two")
    copying.add_argument("source", metavar="SOURCE", help="SANDBOX:/path, a path here, or - for standard input")
    copying.add_argument("target", metavar="TARGET", help="SANDBOX:/path, a path here, or - for standard output")
    copying.add_argument("-r", "--recursive", action="store_true", help="copy a directory with all that is in it")
    remove = action("rm", "delete files, symlinks and empty directories")
    remove.add_argument("sandbox", help="id or name")
    remove.add_argument("path", nargs="+", help="absolute, in the sandbox")
    remove.add_argument("-r", "--recursive", action="store_true", help="delete directories with all that is in them")
    add_yes(remove)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        match arguments.action:
            case "read":
                return _read(client.files(arguments.sandbox), arguments)
            case "write":
                return _write(client.files(arguments.sandbox), arguments)
            case "ls":
                return _list(client.files(arguments.sandbox), arguments)
            case "stat":
                return _stat(client.files(arguments.sandbox), arguments)
            case "cp":
                return _copy(client, arguments)
            case "rm":
                return _remove(client.files(arguments.sandbox), arguments)
    show_misuse("say what to do with files", "'hearth file --help' lists what can be done")
    return USAGE


def read_part(text: str, *, what: str) -> tuple[int, int | None]:
    """Read ``10`` or ``10:5``: the first, and how many.

    Raises:
        InvalidInput: it is of another form.
    """
    first, colon, count = text.partition(":")
    if not first.isdecimal() or (colon and not count.isdecimal()):
        raise InvalidInput(
            f"invalid {what}",
            details=f"{text[:40]!r} is not FIRST or FIRST:COUNT",
            resolution=f"write it as {what} 10 or {what} 10:5",
            field=what,
        )
    return int(first), int(count) if colon else None


def _read(files: Files, arguments: argparse.Namespace) -> int:
    if arguments.lines is not None:
        first, count = read_part(arguments.lines, what="--lines")
        content = "".join(files.read_lines(arguments.path, offset=first, limit=count)).encode()
    elif arguments.bytes is not None:
        content = files.read_range(arguments.path, *read_part(arguments.bytes, what="--bytes"))
    elif arguments.json:
        content = files.read(arguments.path)
    else:
        show_file(files, arguments.path)
        return 0
    if not arguments.json:
        write_all(STDOUT, content)
        return 0
    try:
        shown = {"path": arguments.path, "content": content.decode(), "encoding": "utf-8"}
    except UnicodeDecodeError:
        shown = {"path": arguments.path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
    show_json(shown)
    return 0


def _write(files: Files, arguments: argparse.Namespace) -> int:
    written = write_stdin(files, arguments.path, mode=arguments.mode)
    if arguments.json:
        show_json({"path": arguments.path, "size_bytes": written.size_bytes})
    return 0


def _list(files: Files, arguments: argparse.Namespace) -> int:
    listing = files.list(arguments.path)
    if arguments.json:
        show_json(listing)
        return 0
    show_table(COLUMNS, [_row(entry) for entry in listing.items])
    if listing.total > len(listing.items):
        sys.stderr.write(f"hearth: {listing.total - len(listing.items)} more entries are not shown\n")
    return 0


def _row(entry: FileView) -> tuple[str, ...]:
    name = entry.name if entry.name.isprintable() else ascii(entry.name)[1:-1]
    return (entry.mode, str(entry.size), moment(entry.modified_at), name + ("/" if entry.is_dir else ""))


def _stat(files: Files, arguments: argparse.Namespace) -> int:
    found = files.stat(arguments.path)
    if arguments.json:
        show_json({"path": arguments.path, "size": found.size, "mode": found.mode, "is_dir": found.is_dir})
        return 0
    kind = "directory" if found.is_dir else "file"
    show_table(
        ("field", "value"),
        [("path", arguments.path), ("kind", kind), ("size", str(found.size)), ("mode", found.mode)],
    )
    return 0


def _copy(client: Client, arguments: argparse.Namespace) -> int:
    source, target = read_place(arguments.source, what="SOURCE"), read_place(arguments.target, what="TARGET")
    if arguments.json and target.is_stdio:
        raise InvalidInput(
            "--json and - exclude each other", details="both would write to standard output", field="--json"
        )
    copied = copy_shown(client, source, target, recursive=arguments.recursive)
    if arguments.json:
        summary = {"size_bytes": copied.size_bytes, "skipped": copied.skipped}
        show_json({"source": str(source), "target": str(target), **summary})
    return 0


def _remove(files: Files, arguments: argparse.Namespace) -> int:
    names = ", ".join(arguments.path)
    if not agreed(arguments, f"Delete {names}", deed="deleting", loss=f"{names} would be lost for good"):
        sys.stderr.write("hearth: nothing was deleted\n")
        return FAILED
    return to_each(arguments.path, lambda path: files.delete(path, recursive=arguments.recursive), json=arguments.json)
