"""The data directory on disk: made for its owner alone, held by one daemon at a time, with one secret in it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from hearth.config import DataDirectory
from hearth.errors import Conflict, HostUnfit, NoSpace
from hearth.host.files import OUT_OF_SPACE, write_atomic
from hearth.host.identity import new_id
from hearth.host.locks import FileLock, try_lock

SECRET_BYTES = 32
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
HOST_ID_PATTERN = re.compile(r"host-[0-9a-z]{12}")
TAG_PATTERN = re.compile(r"[0-9a-f]{8}")


def prepare_directory(data: DataDirectory) -> DataDirectory:
    """Make the data directory, for its owner alone, and give it by its real path: links to it are the same place.

    Raises:
        HostUnfit, NoSpace: it cannot be made.
    """
    try:
        for directory in (data.root, data.machines, data.images, data.snapshots, data.verdicts):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.machines.chmod(0o700)
        data.snapshots.chmod(0o700)
    except OSError as error:
        if error.errno in OUT_OF_SPACE:
            raise NoSpace("no space for the data directory", details=f"{data.root}: {error.strerror}") from error
        raise HostUnfit(
            "the data directory cannot be made",
            details=f"HEARTH_DATA {data.root}: {error.strerror}",
            resolution="choose a directory that this user may write",
        ) from error
    return DataDirectory(root=data.root.resolve())


def require_whole(data: DataDirectory) -> None:
    """Refuse to work with half of a backup.

    Raises:
        HostUnfit: a restore was cut off.
    """
    if data.restoring.exists():
        raise HostUnfit(
            "a backup was not restored to its end",
            details=f"{data.restoring} is there: data directory and database do not belong together",
            resolution="run 'hearth backup restore' again, with --force",
        )


def load_tag(data: DataDirectory) -> str:
    """Give the eight hex digits that mark this directory's processes, namespaces and control groups on this host.

    They hold for this directory in this boot: a copy of it, or the same one after a reboot, gets new ones. Nothing made
    under the old ones can be alive then, or it is not ours. Called under the directory's lock.
    """
    status = data.root.stat()
    here = {"boot_id": BOOT_ID.read_text().strip(), "device": status.st_dev, "inode": status.st_ino}
    try:
        known = json.loads(data.mark.read_text())
        if {key: known[key] for key in here} == here and TAG_PATTERN.fullmatch(known["tag"]):
            return str(known["tag"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    tag = secrets.token_hex(4)
    write_atomic(data.mark, json.dumps({**here, "tag": tag}).encode(), mode=0o600)
    return tag


def load_host_id(data: DataDirectory) -> str:
    """Give the name under which a database that several hosts share knows this data directory; made at the first start.

    Raises:
        HostUnfit: the file is there and holds something else; what is on this host would be taken for another's.
    """
    if not data.host_id.exists():
        write_atomic(data.host_id, f"{new_id('host')}\n".encode(), mode=0o600)
    host_id = data.host_id.read_text("utf-8", "replace").strip()
    if HOST_ID_PATTERN.fullmatch(host_id) is None:
        raise HostUnfit(
            "the host's id is damaged",
            details=f"{data.host_id} does not hold one",
            resolution="restore it from a backup, or write the id there that the database's table 'hosts' has for it",
        )
    return host_id


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
