"""What a client remembers: ``client.toml`` with a daemon's address and a token, nobody else's to read."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from hearth.errors import InvalidInput

KEYS = ("url", "token", "token_file", "ca_file", "cert_file", "key_file")
VARIABLE = "HEARTH_CLIENT_CONFIG"
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def client_file(environment: Mapping[str, str]) -> Path:
    """Tell which file: HEARTH_CLIENT_CONFIG, else ``hearth/client.toml`` in XDG's configuration home."""
    if named := environment.get(VARIABLE):
        return Path(named).expanduser()
    home = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '/')}/.config"
    return Path(home) / "hearth" / "client.toml"


def read_client_file(path: Path) -> dict[str, str]:
    """Read it; a missing one says nothing, and one that cannot be reached neither.

    Raises:
        InvalidInput: it is no TOML, has an unknown key, or others can read its token; ``field`` names the key.
    """
    try:
        with path.open("rb") as file:
            mode, content = os.fstat(file.fileno()).st_mode, file.read()
    except OSError:
        return {}
    try:
        said = import_module("tomllib").loads(content.decode())  # 5 ms, which only those with a file wait for
    except ValueError as error:
        raise _wrong(path, VARIABLE, "it is no TOML") from error
    for key, value in said.items():
        if key not in KEYS:
            raise _wrong(path, key[:80], f"there is no key {key[:80]!r}; use {', '.join(KEYS)}")
        if not isinstance(value, str) or not value or not value.isprintable():
            raise _wrong(path, key, f"{key} is no text")
    if "token" in said and mode & OTHERS:
        raise _wrong(path, "token", f"others can read the token in it; chmod 0600 {path}")
    return dict(said)


def _wrong(path: Path, field: str, what: str) -> InvalidInput:
    return InvalidInput(
        "the client's configuration is not right",
        details=f"{path}: {what}",
        resolution="correct it, or write it anew with 'hearth setup --client URL'",
        field=field,
    )
