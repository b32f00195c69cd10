"""The agent's command line, read by hand: argparse would cost a third of the start."""

from __future__ import annotations

import socket

from hearth.agent.patience import Patience
from hearth.wire.record import Record, fields

USAGE = (
    "usage: python -m hearth.agent --listen ADDRESS --forward ADDRESS [--token T | --token-file FILE] [--root DIR]\n"
    "           [--patience NAME=SECONDS,...]"
)
_MAX_UNIX_PATH = 107
_MAX_S = 86_400.0


class BadOption(Exception):
    """An argument cannot be used; the text says which and why."""


class Address(Record):
    """Where to listen: ``unix:PATH`` or ``tcp:ADDRESS:PORT``; ``address`` is what ``socket.bind`` takes."""

    family: int
    address: str | tuple[str, int]
    text: str


class Options(Record):
    listen: Address
    forward: Address
    token: bytes | None = None
    root: str | None = None
    patience: Patience = Patience()
    from_outside: bool = False
    """Serve nobody on this very system, for whom there is no option: it is init's to say."""


def parse(arguments: list[str]) -> Options:
    """Read the command line.

    Raises:
        BadOption: an option is unknown, missing or has no good value.
    """
    values: dict[str, str] = {}
    words = iter(arguments)
    for word in words:
        if word not in ("--listen", "--forward", "--token", "--token-file", "--root", "--patience"):
            raise BadOption(f"unknown option {word}")
        value = next(words, None)
        if value is None:
            raise BadOption(f"{word} needs a value")
        values[word] = value
    for name in ("--listen", "--forward"):
        if name not in values:
            raise BadOption(f"{name} is missing")
    return Options(
        listen=parse_address(values["--listen"]),
        forward=parse_address(values["--forward"]),
        token=_token(values),
        root=values.get("--root"),
        patience=parse_patience(values.get("--patience", "")),
    )


def parse_address(text: str) -> Address:
    """Read ``unix:PATH`` or ``tcp:ADDRESS:PORT`` (numeric; an IPv6 address in brackets).

    Raises:
        BadOption: it is neither.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest:
        if len(rest.encode()) > _MAX_UNIX_PATH:
            raise BadOption(f"socket path longer than {_MAX_UNIX_PATH} bytes: {rest}")
        return Address(family=socket.AF_UNIX, address=rest, text=text)
    host, _, port = rest.rpartition(":")
    if kind == "tcp" and host and port.isdigit() and int(port) < 65_536:
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        return Address(family=family, address=(host.strip("[]"), int(port)), text=text)
    raise BadOption(f"not unix:PATH or tcp:ADDRESS:PORT: {text}")


def parse_patience(text: str) -> Patience:
    """Read ``NAME=SECONDS,NAME=SECONDS``; what is not named keeps its default.

    Raises:
        BadOption: there is no such time, or it is none that can be waited for.
    """
    known = [each.name for each in fields(Patience)]
    values = {}
    for word in text.split(",") if text else ():
        name, _, seconds = word.partition("=")
        if name not in known:
            raise BadOption(f"--patience {name}: no such time, there are {', '.join(known)}")
        try:
            values[name] = float(seconds)
        except ValueError:
            values[name] = 0.0
        if not 0 < values[name] <= _MAX_S:
            raise BadOption(f"--patience {word}: not a number of seconds above 0 and up to {_MAX_S:g}")
    return Patience(**values)


def _token(values: dict[str, str]) -> bytes | None:
    if "--token" in values and "--token-file" in values:
        raise BadOption("--token and --token-file exclude each other")
    if (path := values.get("--token-file")) is not None:
        try:
            with open(path, "rb") as file:
                token = file.read().strip()
        except OSError as error:
            raise BadOption(f"--token-file {path}: {error.strerror}") from error
    else:
        token = values["--token"].encode() if "--token" in values else b""
    return token or None
