"""`hearth secret`: what sandboxes are to know and nobody else: keeps, lists and forgets it; values come from stdin."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path

from hearth.cli.arguments import add_actions, add_json
from hearth.cli.consent import add_yes, agreed
from hearth.cli.each import to_each
from hearth.cli.exits import FAILED
from hearth.cli.show import age, show_json, show_table
from hearth.errors import InvalidInput
from hearth.sdk.client import Client

COLUMNS = ("name", "changed", "age")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    actions = add_actions(parser)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=text, description=text)

    add_json(action("list", "list secrets, without their values (the default)"), again=True)
    put = action("set", "keep a secret, or give it a new value, which is read from stdin: arguments can be seen by all")
    put.add_argument("name", help="letters, digits and '_'")
    put.add_argument("--file", metavar="FILE", type=Path, help="read the value from FILE, every byte of it")
    add_json(put, again=True)
    delete = action("delete", "forget secrets; what runs keeps what it has")
    delete.add_argument("name", nargs="+")
    add_yes(delete)
    add_json(delete, again=True)
    rotate = action("rotate-master-key", "make a new master key and seal every secret anew; for administrators")
    add_json(rotate, again=True)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        match arguments.action:
            case "set":
                made = client.secrets.put(arguments.name, read_value(arguments.file))
                if arguments.json:
                    show_json(made)
                return 0
            case "delete":
                return _delete(client, arguments)
            case "rotate-master-key":
                count = client.secrets.rotate_master_key()
                if arguments.json:
                    show_json({"resealed": count})
                else:
                    print(f"{count} sealed anew")
                return 0
        secrets = client.secrets.every()
    if arguments.json:
        show_json(secrets)
    else:
        show_table(COLUMNS, [(each.name, age(each.updated_at), age(each.created_at)) for each in secrets])
    return 0


def read_value(file: Path | None) -> bytes:
    """Read a value: from a file, else unseen from the terminal, else from stdin without the last line's end.

    Raises:
        InvalidInput: there is none.
    """
    if file is not None:
        try:
            value = file.read_bytes()
        except OSError as error:
            raise InvalidInput(
                "the file cannot be read", details=f"{file}: {error.strerror}", field="--file"
            ) from error
    elif sys.stdin.isatty():
        value = getpass.getpass("value: ").encode()
    else:
        value = sys.stdin.buffer.read().removesuffix(b"\n")
    if not value:
        raise InvalidInput(
            "there is no value",
            details="it is read from stdin, and nothing came",
            resolution="pipe it in, or say --file",
            field="value",
        )
    return value


def _delete(client: Client, arguments: argparse.Namespace) -> int:
    names = ", ".join(arguments.name)
    if not agreed(arguments, f"Forget {names}", deed="forgetting", loss=f"{names} would be lost for good"):
        sys.stderr.write("hearth: nothing was forgotten\n")
        return FAILED
    return to_each(arguments.name, client.secrets.delete, json=arguments.json)
