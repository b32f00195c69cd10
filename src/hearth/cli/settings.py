"""Options that say what sandboxes are like, shared by ``create`` and ``template``; what is not given is not said."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from hearth.cli.arguments import add_env, add_shape, read_duration, read_env, read_pairs
from hearth.cli.net import add_net, policy_of
from hearth.cli.secrets import read_uses
from hearth.cli.volumes import read_new_volume, read_place, read_size
from hearth.errors import InvalidInput
from hearth.sdk.settings import FileOptions, SettingsOptions

_MODE = re.compile(r"0?[0-7]{3,4}")


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Declare them all."""
    parser.add_argument("--image", help="what its disk is made of (default: debian)")
    add_shape(parser)
    parser.add_argument("--disk", metavar="SIZE", help="size of its disk: 16G (default: that of the image)")
    parser.add_argument("-l", "--label", metavar="KEY=VALUE", action="append", default=[], help="label; repeatable")
    keep_hot = argparse.BooleanOptionalAction
    parser.add_argument("--keep-hot", action=keep_hot, help="never let it sleep")
    parser.add_argument("--ttl", metavar="TIME", help="destroy it after so long: 90s, 15m, 2h, 7d")
    parser.add_argument("--idle-pause", metavar="TIME", help="pause it after so long without use")
    parser.add_argument("--idle-stop", metavar="TIME", help="bring it to disk after so long without use")
    _add_volumes(parser)
    _add_secrets(parser)
    add_net(parser)
    add_env(parser)
    parser.add_argument(
        "--file",
        metavar="LOCAL:/path[:MODE]",
        action="append",
        default=[],
        help="put a file of yours there before anything runs, with a mode such as 0755; repeatable",
    )
    parser.add_argument(
        "--init",
        metavar="COMMAND",
        action="append",
        default=[],
        help="run this in its shell, as root, once, before it is there; repeatable",
    )
    parser.add_argument("--init-timeout", metavar="TIME", help="what all of --init may take together (default: 10m)")


def _add_volumes(parser: argparse.ArgumentParser) -> None:
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


def _add_secrets(parser: argparse.ArgumentParser) -> None:
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


def settings_of(arguments: argparse.Namespace) -> SettingsOptions:
    """Give what was asked for, and nothing that was not.

    Raises:
        InvalidInput: an option cannot be read.
    """
    settings = _of_machine(arguments)
    if arguments.env:
        settings["env"] = read_env(arguments.env)
    if arguments.label:
        settings["labels"] = read_pairs(arguments.label, what="--label")
    if arguments.volume:
        settings["volumes"] = [read_place(text) for text in arguments.volume]
    if arguments.new_volume:
        settings["new_volumes"] = [read_new_volume(text) for text in arguments.new_volume]
    if arguments.secret or arguments.secret_file:
        settings["secrets"] = read_uses(arguments.secret, arguments.secret_file)
    if (policy := policy_of(arguments)) is not None:
        settings["net_policy"] = policy
    if arguments.file:
        settings["files"] = read_files(arguments.file)
    if arguments.init:
        settings["init"] = arguments.init
    if arguments.init_timeout is not None:
        settings["init_timeout_s"] = read_duration(arguments.init_timeout, what="--init-timeout")
    return settings


def _of_machine(arguments: argparse.Namespace) -> SettingsOptions:
    settings: SettingsOptions = {}
    if arguments.image is not None:
        settings["image"] = arguments.image
    if arguments.cpus is not None:
        settings["cpus"] = arguments.cpus
    if arguments.memory_mb is not None:
        settings["memory_mb"] = arguments.memory_mb
    if arguments.disk is not None:
        settings["disk_mb"] = read_size(arguments.disk, what="--disk")
    if arguments.keep_hot is not None:
        settings["keep_hot"] = arguments.keep_hot
    if arguments.ttl is not None:
        settings["ttl_s"] = round(read_duration(arguments.ttl, what="--ttl"))
    if arguments.idle_pause is not None:
        settings["idle_pause_s"] = read_duration(arguments.idle_pause, what="--idle-pause")
    if arguments.idle_stop is not None:
        settings["idle_stop_s"] = read_duration(arguments.idle_stop, what="--idle-stop")
    return settings


def read_files(texts: Sequence[str]) -> dict[str, FileOptions]:
    """Read ``LOCAL:/path`` or ``LOCAL:/path:MODE`` words, and the files; without a mode they have their own.

    Raises:
        InvalidInput: a word is of another form, or its file cannot be read.
    """
    files: dict[str, FileOptions] = {}
    for text in texts:
        rest, colon, last = text.rpartition(":")
        place, mode = (rest, last) if colon and _MODE.fullmatch(last) and ":" in rest else (text, None)
        local, colon, path = place.rpartition(":")
        if not local or not path.startswith("/"):
            raise InvalidInput(
                "invalid --file",
                details=f"{text[:80]!r} is not of the form LOCAL:/path or LOCAL:/path:MODE",
                resolution="write it as app.toml:/etc/app.toml, or run.sh:/usr/local/bin/run:0755",
                field="--file",
            )
        try:
            content = Path(local).read_bytes()
            own_mode = f"{Path(local).stat().st_mode & 0o777:04o}"
        except OSError as error:
            raise InvalidInput(
                "the file cannot be read", details=f"{local}: {error.strerror}", field="--file"
            ) from error
        files[path] = (content, mode or own_mode)
    return files
