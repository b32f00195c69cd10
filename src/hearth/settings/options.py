"""The flags of `serve`, made from the table, and what they come to together with all else."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hearth.settings.kinds import Choice, Kind, YesNo, joined
from hearth.settings.loading import Loaded, find_file, load
from hearth.settings.render import default_text
from hearth.settings.table import GROUPS, SETTINGS, Setting

PASSWORD_IN_URL = re.compile(r"//[^/?#]*:[^/?#]*@|[?&][^=&]*password=", re.IGNORECASE)


class _Join(argparse.Action):
    """Puts together what a repeated flag says."""

    def __init__(self, *, kind: Kind, **more: Any) -> None:
        super().__init__(**more)
        self._kind = kind

    def __call__(self, _parser: object, namespace: argparse.Namespace, values: Any, _option: object = None) -> None:
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, joined(self._kind, [values] if before is None else [before, values]))


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare a flag for each setting that is no secret, and the file of all of them."""
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="file of settings (default: HEARTH_CONFIG, else the usual one)"
    )
    for name in GROUPS:
        group = parser.add_argument_group(name)
        for setting in SETTINGS:
            if setting.group == name and setting.flag is not None:
                _declare_flag(group, setting, setting.flag)
        if name == "server":
            group.add_argument(
                "--database",
                metavar="URL",
                dest="database_url",
                type=url_without_password,
                help="where the daemon keeps what it knows: postgresql://USER@HOST/NAME or sqlite:////FILE",
            )


def url_without_password(text: str) -> str:
    """Take a database's URL from the command line, where everybody on this host can read it."""
    if PASSWORD_IN_URL.search(text):
        raise argparse.ArgumentTypeError(
            "a password on the command line can be read by everybody on this host; put the URL into"
            " HEARTH_DATABASE_URL or the file of settings, or the password into a passfile (docs/database.md)"
        )
    return text


def _declare_flag(group: Any, setting: Setting, flag: str) -> None:
    text = setting.help.replace("%", "%%")
    default = default_text(setting)
    if default and "(default" not in text:
        text += f" (default: {default})"
    kind = setting.kind
    if isinstance(kind, YesNo):
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
    elif kind.is_many:
        group.add_argument(
            flag, metavar=kind.metavar, action=_Join, kind=kind, type=_reader(kind), help=f"{text}; repeatable"
        )
    elif isinstance(kind, Choice):
        group.add_argument(flag, choices=kind.values, type=_reader(kind), help=text)
    else:
        group.add_argument(flag, metavar=kind.metavar, type=_reader(kind), help=text)


def _reader(kind: Kind) -> Any:
    def read(text: str) -> Any:
        try:
            return kind.read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def load_settings(flags: argparse.Namespace, environment: Mapping[str, str] = os.environ) -> Loaded:
    """Put flags, environment, the file and defaults together.

    Raises:
        InvalidInput: a value is not acceptable; ``field`` names it.
        HostUnfit: the file cannot be read, or its rights are too wide.
    """
    file, must_exist = find_file(flags.config, environment, is_root=os.geteuid() == 0)
    return load(flags, environment, file, must_exist=must_exist)


def read_words(words: Sequence[str], environment: Mapping[str, str], file: Path | None = None) -> Loaded:
    """Read the flags of a command line by themselves.

    Raises:
        InvalidInput, HostUnfit: as ``load``.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    declare(parser)
    return load(parser.parse_args(words), environment, file, must_exist=file is not None)
