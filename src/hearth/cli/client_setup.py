"""`hearth setup --client`: tries a daemon's address and a token, and remembers them."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
from pathlib import Path

from hearth.cli.show import show_json
from hearth.errors import InvalidInput
from hearth.host.files import write_atomic
from hearth.sdk.client import Client
from hearth.sdk.client_file import client_file

STDIN = "-"
TOKEN_MAX = 4096


def set_up_client(arguments: argparse.Namespace) -> int:
    """Call the daemon, write the client's file (0600), say who we are there. Nothing is written unless it answers.

    Raises:
        HearthError: it does not answer, does not know the token, or the file cannot be written.
    """
    url: str = arguments.client
    token = _token(arguments.token_file)
    said = {"url": url, "token": token}
    if arguments.ca_file is not None:
        said["ca_file"] = os.environ["HEARTH_CA_FILE"] = str(arguments.ca_file.absolute())
    with Client(url, token) as client:
        me, health = client.users.get(), client.health()
    path = client_file(os.environ)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, "".join(f"{key} = {json.dumps(value)}\n" for key, value in said.items()).encode())
    if arguments.json:
        show_json({"url": url, "user": me.name, "admin": me.admin, "version": health.version, "file": str(path)})
        return 0
    role = "an administrator" if me.admin else "a user"
    sys.stdout.write(f"{url}: hearth {health.version}; you are {me.name}, {role}\n")
    sys.stderr.write(f"address and token are kept in {path}\n")
    return 0


def _token(file: Path | None) -> str:
    """Read the token from a file, from stdin, from the environment, or ask at a terminal."""
    if file is not None:
        token = sys.stdin.read(TOKEN_MAX) if str(file) == STDIN else _of(file)
    elif from_environment := os.environ.get("HEARTH_TOKEN"):
        token = from_environment
    elif sys.stdin.isatty():
        token = getpass.getpass("API key: ")
    else:
        token = ""
    token = token.strip()
    if not token or not token.isprintable() or " " in token:
        raise InvalidInput(
            "no token",
            details="neither --token-file nor HEARTH_TOKEN gave one word",
            resolution="say --token-file FILE, or --token-file - and write it to stdin",
            field="token-file",
        )
    return token


def _of(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            "the token's file cannot be read",
            details=f"{file}: {error.strerror if isinstance(error, OSError) else 'it is no text'}",
            resolution="name a readable file with nothing but the token",
            field="token-file",
        ) from error
