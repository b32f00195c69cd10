"""`hearth key`: API keys: makes, lists, replaces and revokes them; yours unless another user is named."""

from __future__ import annotations

import argparse

from hearth.api.user_schemas import KeyView
from hearth.cli.arguments import add_actions, add_json, read_duration
from hearth.cli.each import to_each
from hearth.cli.keys import show_secret
from hearth.cli.show import age, moment, show_json, show_table
from hearth.sdk.client import Client
from hearth.sdk.user_calls import MYSELF, KeyOptions

COLUMNS = ("id", "name", "key", "kind", "scope", "sandbox", "state", "last used", "age")
TIME = "such as 90s, 2h or 30d"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    actions = add_actions(parser)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=text, description=text)
        made.add_argument("--user", default=MYSELF, metavar="USER", help="whose, by id or name (default: yours)")
        return made

    add_json(action("list", "list keys, those that ended too (the default)"), again=True)
    create = action("create", "make a key and print its secret, which is shown this once")
    create.add_argument("name", nargs="?", help="what you call it")
    create.add_argument("--scope", choices=("read", "exec", "write", "full"), default="full", help="what it may do")
    create.add_argument("--sandbox", metavar="SANDBOX", help="the only sandbox it opens; with scope read or exec")
    create.add_argument("--expires", metavar="TIME", help=f"when it ends, {TIME} from now (default: never)")
    create.add_argument("--hmac", action="store_true", help="a key to sign requests with, which is never sent")
    add_json(create, again=True)
    rotate = action("rotate", "make a key in place of another and print its secret, which is shown this once")
    rotate.add_argument("key", nargs="?", help="the other, by id or name (default: the one you are using)")
    rotate.add_argument("--overlap", metavar="TIME", default="0", help=f"how long the other stays valid, {TIME}")
    add_json(rotate, again=True)
    revoke = action("revoke", "end keys now")
    revoke.add_argument("key", nargs="+", help="id or name")
    add_json(revoke, again=True)


def run(arguments: argparse.Namespace) -> int:
    user = getattr(arguments, "user", MYSELF)
    with Client() as client:
        match arguments.action:
            case "create":
                made = client.users.create_key(user, **_options(arguments))
                return show_secret(made.secret, made, json=arguments.json)
            case "rotate":
                overlap_s = int(read_duration(arguments.overlap, what="--overlap"))
                made = client.users.rotate_key(user, key=arguments.key, overlap_s=overlap_s)
                return show_secret(made.secret, made, json=arguments.json)
            case "revoke":
                return to_each(arguments.key, lambda key: client.users.revoke_key(key, user), json=arguments.json)
            case _:
                return _list(client, user, json=arguments.json)


def _options(arguments: argparse.Namespace) -> KeyOptions:
    options: KeyOptions = {
        "name": arguments.name,
        "scope": arguments.scope,
        "sandbox": arguments.sandbox,
        "kind": "hmac" if arguments.hmac else "bearer",
    }
    if arguments.expires is not None:
        options["ttl_s"] = int(read_duration(arguments.expires, what="--expires"))
    return options


def _list(client: Client, user: str, *, json: bool) -> int:
    keys = client.users.keys_of(user)
    if json:
        show_json(keys)
    else:
        show_table(COLUMNS, [_row(key) for key in keys])
    return 0


def _row(key: KeyView) -> tuple[str, ...]:
    return (
        key.id,
        key.name,
        f"{key.prefix}…",
        key.kind,
        key.scope,
        key.sandbox or "",
        _state(key),
        "never" if key.last_used_at is None else age(key.last_used_at),
        age(key.created_at),
    )


def _state(key: KeyView) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if not key.valid:
        return "expired"
    return "valid" if key.expires_at is None else f"until {moment(key.expires_at)}"
