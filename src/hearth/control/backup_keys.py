"""The keys of a data directory, sealed with a passphrase: Argon2id and XSalsa20-Poly1305 of libsodium, by PyNaCl."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec
from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox
from nacl.utils import random as random_bytes

from hearth.control.backup_file import BackupDamaged
from hearth.errors import InvalidInput

MIN_CHARACTERS = 12
MAX_OPERATIONS = 64
MAX_MEMORY_BYTES = 1024 * 1024 * 1024
"""A file that was tampered with must not take this host's memory."""


class SealedKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Keys by name, sealed; how much work and memory opening takes stands beside."""

    salt: bytes
    operations: int
    memory_bytes: int
    sealed: bytes


def read_passphrase(path: Path) -> bytes:
    """Read a passphrase: a file's first line, of at least MIN_CHARACTERS, which nobody else may read.

    Raises:
        InvalidInput: it cannot be used.
    """
    try:
        mode, text = path.stat().st_mode, path.read_bytes()
    except OSError as error:
        raise _useless(path, error.strerror or "it cannot be read") from error
    if stat.S_ISREG(mode) and stat.S_IMODE(mode) & 0o077:
        raise _useless(path, f"others may read it: it has mode {stat.S_IMODE(mode):04o}")
    passphrase = text.split(b"\n", 1)[0].rstrip(b"\r")
    if len(passphrase) < MIN_CHARACTERS:
        raise _useless(path, f"its first line has {len(passphrase)} characters, at least {MIN_CHARACTERS} are wanted")
    return passphrase


def seal_keys(keys: Mapping[str, bytes], passphrase: bytes) -> bytes:
    """Seal keys; takes about a tenth of a second and 64 MiB on purpose."""
    salt = random_bytes(argon2id.SALTBYTES)
    operations, memory_bytes = argon2id.OPSLIMIT_INTERACTIVE, argon2id.MEMLIMIT_INTERACTIVE
    key = argon2id.kdf(SecretBox.KEY_SIZE, passphrase, salt, opslimit=operations, memlimit=memory_bytes)
    sealed = bytes(SecretBox(key).encrypt(msgspec.json.encode(dict(keys))))
    made = SealedKeys(salt=salt, operations=operations, memory_bytes=memory_bytes, sealed=sealed)
    return msgspec.json.encode(made)


def open_keys(content: bytes, passphrase: bytes) -> dict[str, bytes]:
    """Open them.

    Raises:
        InvalidInput: the passphrase is another.
        BackupDamaged: it is nothing that ``seal_keys`` wrote.
    """
    try:
        found = msgspec.json.decode(content, type=SealedKeys)
        if found.operations > MAX_OPERATIONS or found.memory_bytes > MAX_MEMORY_BYTES:
            raise ValueError("opening them would take too much")
        key = argon2id.kdf(
            SecretBox.KEY_SIZE, passphrase, found.salt, opslimit=found.operations, memlimit=found.memory_bytes
        )
        return msgspec.json.decode(SecretBox(key).decrypt(found.sealed), type=dict[str, bytes])
    except CryptoError as error:
        raise InvalidInput(
            "the passphrase does not open the backup's keys",
            resolution="give the one it was made with, or restore with --without-keys",
            field="passphrase-file",
        ) from error
    except (ValueError, msgspec.DecodeError) as error:
        raise BackupDamaged("the backup is damaged", details=f"its keys: {error}") from error


def _useless(path: Path, why: str) -> InvalidInput:
    return InvalidInput(
        "the passphrase cannot be used",
        details=f"{path}: {why}",
        resolution="write it into a file of mode 0600",
        field="passphrase-file",
    )
