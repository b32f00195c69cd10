"""The data directory on disk: made for its owner alone, held by one daemon at a time, with one secret in it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from hearth.config import DataDirectory
from hearth.errors import Conflict, HostUnfit, NoSpace
from hearth.host.files import OUT_OF_SPACE, write_atomic
from hearth.host.locks import FileLock, try_lock

SECRET_BYTES = 32


def prepare_directory(data: DataDirectory) -> None:
    """Make the data directory, for its owner alone.

    Raises:
        HostUnfit, NoSpace: it cannot be made.
    """
    try:
        for directory in (data.root, data.machines, data.images, data.verdicts):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in OUT_OF_SPACE:
            raise NoSpace("no space for the data directory", details=f"{data.root}: {error.strerror}") from error
        raise HostUnfit(
            "the data directory cannot be made",
            details=f"HEARTH_DATA {data.root}: {error.strerror}",
            resolution="choose a directory that this user may write",
        ) from error


@contextlib.contextmanager
def own_directory(data: DataDirectory) -> Iterator[FileLock]:
    """Hold the data directory's lock, with our process id in it."""
    lock = try_lock(data.lock)
    if lock is None:
        holder = data.lock.read_text().strip() or "unknown"
        raise Conflict(
            "another daemon uses this data directory",
            details=f"HEARTH_DATA {data.root} is held by process {holder}",
            resolution="use that daemon, stop it, or choose another HEARTH_DATA",
            field="HEARTH_DATA",
        )
    with lock:
        data.lock.write_text(f"{os.getpid()}\n")
        yield lock


def load_secret(path: Path) -> bytes:
    """Give the secret that agents' tokens are derived from, making it at the first start.

    Raises:
        HostUnfit: the file is there and is not a secret of ours; it is never replaced in silence.
    """
    if not path.exists():
        write_atomic(path, secrets.token_bytes(SECRET_BYTES), mode=0o600)
    secret = path.read_bytes()
    if len(secret) != SECRET_BYTES:
        raise HostUnfit(
            "the agent-token secret is damaged",
            details=f"{path} holds {len(secret)} bytes, not {SECRET_BYTES}",
            resolution="restore it from a backup; without it running machines cannot be reached",
        )
    return secret
