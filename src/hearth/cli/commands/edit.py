"""`hearth edit`: changes what may be changed of a living sandbox, and wakes nothing."""

from __future__ import annotations

import argparse

from hearth.cli.arguments import add_json, read_duration, read_pairs
from hearth.cli.net import add_net, policy_of
from hearth.cli.show import show_json
from hearth.errors import InvalidInput
from hearth.sdk.client import Client
from hearth.sdk.sleep_calls import ChangeOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sandbox", help="id or name")
    parser.add_argument("--name", help="a new name")
    parser.add_argument("-l", "--label", metavar="KEY=VALUE", action="append", default=[], help="set a label")
    parser.add_argument("--remove-label", metavar="KEY", action="append", default=[], help="take a label away")
    parser.add_argument("--keep-hot", action=argparse.BooleanOptionalAction, help="never let it sleep; or let it again")
    life = parser.add_mutually_exclusive_group()
    life.add_argument("--ttl", metavar="TIME", help="destroy it after so long from now: 90s, 15m, 2h, 7d")
    life.add_argument("--no-ttl", action="store_true", help="let it live until it is destroyed by hand")
    add_net(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    changes = changes_of(arguments)
    with Client() as client:
        view = client.update(arguments.sandbox, **changes).view
    if arguments.json:
        show_json(view)
    else:
        print(view.name)
    return 0


def changes_of(arguments: argparse.Namespace) -> ChangeOptions:
    """Give what was asked for.

    Raises:
        InvalidInput: nothing was, or an option cannot be read.
    """
    changes: ChangeOptions = {}
    if arguments.name is not None:
        changes["name"] = arguments.name
    if arguments.label:
        changes["labels_add"] = read_pairs(arguments.label, what="--label")
    if arguments.remove_label:
        changes["labels_remove"] = arguments.remove_label
    if arguments.keep_hot is not None:
        changes["keep_hot"] = arguments.keep_hot
    if arguments.no_ttl:
        changes["ttl_s"] = None
    elif arguments.ttl is not None:
        changes["ttl_s"] = round(read_duration(arguments.ttl, what="--ttl"))
    if (policy := policy_of(arguments)) is not None:
        changes["net_policy"] = policy
    if not changes:
        raise InvalidInput(
            "nothing to change",
            details="no option says what",
            resolution="'hearth edit --help' tells what can be changed",
        )
    return changes
