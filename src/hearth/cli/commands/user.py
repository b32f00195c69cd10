"""`hearth user`: who may call: makes, lists, shows, changes and deletes users; for administrators."""

from __future__ import annotations

import argparse
import sys

from hearth.api.user_schemas import UserView
from hearth.cli.arguments import add_actions, add_json
from hearth.cli.consent import add_yes, agreed
from hearth.cli.each import to_each
from hearth.cli.exits import FAILED
from hearth.cli.keys import show_secret
from hearth.cli.show import age, moment, show_json, show_table
from hearth.sdk.client import Client
from hearth.sdk.user_calls import MYSELF

COLUMNS = ("name", "id", "role", "age")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    actions = add_actions(parser)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=text, description=text)

    add_json(action("list", "list users (the default)"), again=True)
    inspect = action("inspect", "show one user")
    inspect.add_argument("user", nargs="?", default=MYSELF, help="id or name (default: you)")
    add_json(inspect, again=True)
    create = action("create", "make a user and print the first API key, which is shown this once")
    create.add_argument("name", help="a DNS label")
    create.add_argument("--admin", action="store_true", help="an administrator, who sees and may everything")
    add_json(create, again=True)
    change = action("edit", "change a user's name or rights")
    change.add_argument("user", help="id or name")
    change.add_argument("--name", metavar="NAME", help="call the user NAME from now on")
    change.add_argument("--admin", action=argparse.BooleanOptionalAction, help="be an administrator, or not any more")
    add_json(change, again=True)
    delete = action("delete", "delete users who own nothing any more, with all their keys and secrets")
    delete.add_argument("user", nargs="+", help="id or name")
    add_yes(delete)
    add_json(delete, again=True)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        match arguments.action:
            case "create":
                made = client.users.create(arguments.name, admin=arguments.admin)
                return show_secret(made.secret, made, json=arguments.json)
            case "edit":
                changed = client.users.change(arguments.user, name=arguments.name, admin=arguments.admin)
                return _show(changed, json=arguments.json)
            case "inspect":
                return _show(client.users.get(arguments.user), json=arguments.json)
            case "delete":
                return _delete(client, arguments)
            case _:
                return _list(client, json=arguments.json)


def _list(client: Client, *, json: bool) -> int:
    users = client.users.every()
    if json:
        show_json(users)
    else:
        show_table(COLUMNS, [(user.name, user.id, _role(user), age(user.created_at)) for user in users])
    return 0


def _show(user: UserView, *, json: bool) -> int:
    if json:
        show_json(user)
        return 0
    rows = [("id", user.id), ("name", user.name), ("role", _role(user)), ("created", moment(user.created_at))]
    show_table(("field", "value"), rows)
    return 0


def _delete(client: Client, arguments: argparse.Namespace) -> int:
    names = ", ".join(arguments.user)
    if not agreed(arguments, f"Delete {names}", deed="deleting", loss=f"{names} and all their keys would be lost"):
        sys.stderr.write("hearth: nobody was deleted\n")
        return FAILED
    return to_each(arguments.user, client.users.delete, json=arguments.json)


def _role(user: UserView) -> str:
    return "administrator" if user.admin else "user"
