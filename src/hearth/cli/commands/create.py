"""`hearth create`."""

from __future__ import annotations

import argparse
import sys

from hearth.cli.arguments import add_env, add_json, read_pairs
from hearth.cli.show import show_json
from hearth.sdk.calls import CreateOptions
from hearth.sdk.client import Client


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="a name of your own; without it the daemon chooses one")
    parser.add_argument("--image", help="what its disk is made of (default: debian)")
    parser.add_argument("--cpus", type=int, metavar="N", help="virtual CPUs (default: 1)")
    parser.add_argument("-m", "--memory-mb", type=int, metavar="MIB", help="memory in MiB (default: 256)")
    parser.add_argument("-l", "--label", metavar="KEY=VALUE", action="append", default=[], help="label; repeatable")
    add_env(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    options: CreateOptions = {
        "name": arguments.name,
        "env": read_pairs(arguments.env, what="--env"),
        "labels": read_pairs(arguments.label, what="--label"),
    }
    if arguments.image is not None:
        options["image"] = arguments.image
    if arguments.cpus is not None:
        options["cpus"] = arguments.cpus
    if arguments.memory_mb is not None:
        options["memory_mb"] = arguments.memory_mb
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
