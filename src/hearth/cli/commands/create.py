"""`hearth create`."""

from __future__ import annotations

import argparse
import sys

from hearth.cli.arguments import add_env, add_json, add_shape, read_duration, read_pairs
from hearth.cli.net import add_net, policy_of
from hearth.cli.secrets import read_uses
from hearth.cli.show import show_json
from hearth.cli.volumes import read_new_volume, read_place
from hearth.sdk.calls import CreateOptions
from hearth.sdk.client import Client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a name of your own; without it the daemon chooses one")
    parser.add_argument("--image", help="what its disk is made of (default: debian)")
    parser.add_argument("--from", dest="source", metavar="NAME", help="start from a checkpoint, or fork a sandbox")
    add_shape(parser)
    parser.add_argument("-l", "--label", metavar="KEY=VALUE", action="append", default=[], help="label; repeatable")
    parser.add_argument("--keep-hot", action="store_true", help="never let it sleep")
    parser.add_argument("--ttl", metavar="TIME", help="destroy it after so long: 90s, 15m, 2h, 7d")
    parser.add_argument("--idle-pause", metavar="TIME", help="pause it after so long without use")
    parser.add_argument("--idle-stop", metavar="TIME", help="bring it to disk after so long without use")
    parser.add_argument(
        "--volume",
        metavar="NAME:/path[:ro]",
        action="append",
        default=[],
        help="mount a volume there: writable and for it alone, or ro together with others; repeatable",
    )
    parser.add_argument(
        "--new-volume",
        metavar="NAME:SIZE:/path",
        action="append",
        default=[],
        help="make a volume (512M, 20G), which stays when the sandbox goes, and mount it there; repeatable",
    )
    parser.add_argument(
        "--secret",
        metavar="[VARIABLE=]NAME",
        action="append",
        default=[],
        help="give it a secret of yours as a variable; repeatable",
    )
    parser.add_argument(
        "--secret-file",
        metavar="NAME",
        action="append",
        default=[],
        help="give it a secret of yours as the file /run/secrets/NAME; repeatable",
    )
    add_net(parser)
    add_env(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    options = options_of(arguments)
    with Client() as client:
        view = client.create(**options).view
    if arguments.json:
        show_json(view)
        return 0
    if sys.stderr.isatty():
        for timing in view.timings:
            sys.stderr.write(f"  {timing.duration_ms:9.1f} ms  {timing.name}\n")
    print(view.name)
    return 0


def options_of(arguments: argparse.Namespace) -> CreateOptions:
    """Give what was asked for.

    Raises:
        InvalidInput: an option cannot be read.
    """
    options: CreateOptions = {
        "name": arguments.name,
        "from_": arguments.source,
        "image": arguments.image,
        "cpus": arguments.cpus,
        "memory_mb": arguments.memory_mb,
        "env": read_pairs(arguments.env, what="--env"),
        "labels": read_pairs(arguments.label, what="--label"),
        "keep_hot": arguments.keep_hot,
    }
    if arguments.volume:
        options["volumes"] = [read_place(text) for text in arguments.volume]
    if arguments.new_volume:
        options["new_volumes"] = [read_new_volume(text) for text in arguments.new_volume]
    if arguments.secret or arguments.secret_file:
        options["secrets"] = read_uses(arguments.secret, arguments.secret_file)
    if arguments.ttl is not None:
        options["ttl_s"] = round(read_duration(arguments.ttl, what="--ttl"))
    if arguments.idle_pause is not None:
        options["idle_pause_s"] = read_duration(arguments.idle_pause, what="--idle-pause")
    if arguments.idle_stop is not None:
        options["idle_stop_s"] = read_duration(arguments.idle_stop, what="--idle-stop")
    if (policy := policy_of(arguments)) is not None:
        options["net_policy"] = policy
    return options
