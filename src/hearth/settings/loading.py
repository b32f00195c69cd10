"""Reads settings: flag > environment > file > default, and remembers where each value came from."""

from __future__ import annotations

import argparse
import difflib
import ipaddress
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from hearth.config import Settings, config_directory
from hearth.errors import HearthError, HostUnfit, InvalidInput
from hearth.quota import DEFAULT_QUOTAS
from hearth.rates import DEFAULT_RATES
from hearth.settings.kinds import shown
from hearth.settings.table import BY_NAME, SETTINGS, Setting

FILE_NAME = "hearth.toml"
CONFIG = "HEARTH_CONFIG"
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", "8080"
"""Where HOST or PORT alone were said."""


class Source(StrEnum):
    """Who said a value; the later in this list wins."""

    DEFAULT = "default"
    FILE = "file"
    ENVIRONMENT = "environment"
    FLAG = "flag"


@dataclass(frozen=True, kw_only=True)
class Said:
    """A value, who said it, and where: a flag, a variable, a file."""

    value: Any = field(repr=False)
    source: Source
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Every setting's value with where it came from; ``file`` is the one that was read, if one was."""

    said: Mapping[str, Said]
    file: Path | None

    @property
    def arguments(self) -> argparse.Namespace:
        """The values by name, as if all had been said by flags."""
        return argparse.Namespace(**{name: said.value for name, said in self.said.items()})

    def explain(self, error: HearthError) -> HearthError:
        """Add to an error about a setting where its value came from, when that was no flag."""
        said = self.said.get((error.field or "").replace("-", "_"))
        if said is None or said.source in (Source.DEFAULT, Source.FLAG) or said.where in error.details:
            return error
        error.details = f"{error.details}; it is set by {said.where}"
        return error


def load(
    flags: argparse.Namespace, environment: Mapping[str, str], file: Path | None, *, must_exist: bool = False
) -> Loaded:
    """Put all sources together.

    Args:
        flags: what ``options.declare`` declared; None where nothing was said.
        file: None reads no file.
        must_exist: whether the file was asked for, so that its absence is an error.

    Raises:
        InvalidInput: a value is not acceptable, or the file has a key that is no setting; ``field`` names it.
        HostUnfit: the file cannot be read, or others could read or change what they must not.
    """
    in_file = {} if file is None else read_file(file, must_exist=must_exist)
    in_environment = dict(read_environment(environment))
    said = {}
    for setting in SETTINGS:
        holds = Said(value=setting.default, source=Source.DEFAULT)
        flag = getattr(flags, setting.name, None)
        in_flag = None if flag is None else Said(value=flag, source=Source.FLAG, where=setting.flag or "")
        for upper in (in_file.get(setting.name), in_environment.get(setting.name), in_flag):
            if upper is not None:
                holds = replace(upper, value=setting.kind.merge(holds.value, upper.value))
        said[setting.name] = holds
    return Loaded(said=said, file=file if in_file or (file is not None and os.access(file, os.F_OK)) else None)


def find_file(chosen: Path | None, environment: Mapping[str, str], *, is_root: bool) -> tuple[Path, bool]:
    """Tell the file: ``--config``, else HEARTH_CONFIG, else the usual one; and whether it has to exist."""
    if chosen is not None:
        return chosen, True
    if named := environment.get(CONFIG):
        return Path(named).expanduser().absolute(), True
    return config_directory(environment, is_root=is_root) / FILE_NAME, False


def read_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, Said]]:
    """Give what variables say; a setting's own comes before its aliases. An empty one says nothing.

    Raises:
        InvalidInput: names the variable.
    """
    for setting in SETTINGS:
        spoken = [(setting.variable, environment.get(setting.variable, ""))]
        spoken += [(alias.name, _reworded(environment.get(alias.name, ""), alias.reword)) for alias in setting.aliases]
        if setting.name == "listen":
            spoken.append(_listen_alias(environment))
        variable, text = next(((name, text) for name, text in spoken if text), ("", ""))
        if not text:
            continue
        try:
            value = setting.kind.read(text)
        except ValueError as error:
            details = "what it says is not acceptable" if setting.is_secret else str(error)
            raise InvalidInput(
                f"invalid {variable}",
                details=f"{variable} in the environment: {details}",
                resolution=f"correct it, or unset it; it stands for the setting {setting.name}",
                field=variable,
            ) from error
        yield setting.name, Said(value=value, source=Source.ENVIRONMENT, where=f"{variable} in the environment")


def _reworded(text: str, reword: Any) -> str:
    return str(reword(text)) if text else ""


def _listen_alias(environment: Mapping[str, str]) -> tuple[str, str]:
    """Read HOST and PORT; HOST alone only where it is an address, for some shells export a host's name by it."""
    host, port = environment.get("HOST", ""), environment.get("PORT", "")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    if not port and address is None:
        return "HOST", ""
    host = f"[{host}]" if address is not None and address.version == 6 else host or DEFAULT_HOST
    return "HOST and PORT" if host and port else "PORT" if port else "HOST", f"{host}:{port or DEFAULT_PORT}"


def read_file(path: Path, *, must_exist: bool) -> dict[str, Said]:
    """Read and check the file.

    Raises:
        InvalidInput: it is no TOML, has an unknown key or a value that is not acceptable.
        HostUnfit: it cannot be read, others could change it, or it holds secrets that others could read.
    """
    try:
        with path.open("rb") as file:
            status, content = os.fstat(file.fileno()), file.read()
    except FileNotFoundError as error:
        if not must_exist:
            return {}
        raise _unreadable(path, error) from error
    except OSError as error:
        # The usual place of somebody else's: whoever became another user kept that one's home directory.
        if not must_exist and not os.access(path.parent, os.X_OK):
            return {}
        raise _unreadable(path, error) from error
    try:
        keys = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(
            "the configuration is no TOML",
            details=f"{path}: {error}",
            resolution="correct it; 'hearth config default' shows what a file looks like",
            field=CONFIG,
        ) from error
    _check_rights(path, status, [name for name in keys if name in BY_NAME and BY_NAME[name].is_secret])
    return {name: Said(value=_value(path, name, keys[name]), source=Source.FILE, where=str(path)) for name in keys}


def _value(path: Path, name: str, value: Any) -> Any:
    setting = BY_NAME.get(name)
    if setting is None:
        near = difflib.get_close_matches(name, BY_NAME, n=1)
        raise InvalidInput(
            "unknown setting",
            details=f"{path}: there is no setting {shown(name)}",
            resolution=f"did you mean {near[0]!r}?" if near else "'hearth config default' lists them all",
            field=name[:80],
        )
    try:
        return setting.kind.take(value)
    except ValueError as error:
        details = "what it says is not acceptable" if setting.is_secret else str(error)
        raise InvalidInput(
            f"invalid {name}",
            details=f"{path}: {name}: {details}",
            resolution=f"correct it there: {_form(setting)}",
            field=name,
        ) from error


def _form(setting: Setting) -> str:
    unit = f", in {setting.kind.unit}" if setting.kind.unit else ""
    return f"{setting.help} ({setting.kind.metavar}{unit})"


def _check_rights(path: Path, status: os.stat_result, secrets: list[str]) -> None:
    if not stat.S_ISREG(status.st_mode):
        return  # such as /dev/null, which says nothing
    if status.st_mode & stat.S_IWOTH or status.st_uid not in (0, os.geteuid()):
        raise HostUnfit(
            "others can change the configuration",
            details=f"{path} belongs to user {status.st_uid} and has mode {stat.S_IMODE(status.st_mode):04o}",
            resolution=f"chown it to the daemon's user and chmod o-w {path}",
        )
    if secrets and status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise HostUnfit(
            "everybody can read the configuration's secrets",
            details=f"{path} holds {', '.join(secrets)} and has mode {stat.S_IMODE(status.st_mode):04o}",
            resolution=f"chmod 0600 {path}, and replace what may have been seen",
        )


def _unreadable(path: Path, error: OSError) -> HostUnfit:
    return HostUnfit(
        "the configuration cannot be read",
        details=f"{path}: {error.strerror}",
        resolution="name another by --config or HEARTH_CONFIG, or make it readable",
    )


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Give the settings a daemon is opened with."""
    own: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    for setting in SETTINGS:
        if setting.field is not None:
            inner = setting.field.removeprefix("provisioning.")
            (own if inner == setting.field else nested)[inner] = getattr(arguments, setting.name)
    default = Settings()
    return replace(
        default,
        **own,
        rates=DEFAULT_RATES.but(arguments.rate),
        quotas=DEFAULT_QUOTAS.but(arguments.quota),
        provisioning=replace(default.provisioning, **nested),
    )
