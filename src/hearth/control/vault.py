"""The master key: what secrets are sealed with before they reach the database. It lies in a file of its own, 0600.

A key that is lost or another's is an error that names the file and the key; a new one is made only where nothing was
sealed yet. XChaCha20-Poly1305 of libsodium, by PyNaCl; what is sealed is bound to its place, so that a row put into
another's does not open. docs/decisions/secrets.md tells why.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import stat
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from nacl.exceptions import CryptoError
from nacl.secret import Aead
from nacl.utils import random as random_bytes

from hearth.errors import HostUnfit
from hearth.host.files import write_atomic
from hearth.store.secret_store import Sealed, SecretStore

log = structlog.get_logger(__name__)

HEADER = "hearth-master-key-1:"
ID_CHARACTERS = 16


@dataclass(frozen=True, kw_only=True)
class MasterKey:
    """One key; ``id`` is derived from it and tells nothing about it."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        return hashlib.sha256(b"hearth master key id:" + self.secret).hexdigest()[:ID_CHARACTERS]


class Vault:
    """Seals and opens.

    Args:
        path: the file of the master key; while the key is being changed it holds the new one and those before it.
        store: what is sealed, and with which keys.
    """

    def __init__(self, path: Path, store: SecretStore) -> None:
        self._path = path
        self._store = store
        self._lock = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def sealing(self) -> AsyncIterator[MasterKey]:
        """Give the key to seal with; what is sealed must be stored inside the context, or a change might miss it.

        Raises:
            HostUnfit: the key is lost, damaged, or others may read it.
        """
        async with self._lock:
            yield (await self._keys(make=True))[0]

    async def open(self, sealed: Sequence[Sealed]) -> Sequence[bytes]:
        """Give what was sealed.

        Raises:
            HostUnfit: its key is lost, or it was damaged.
        """
        keys = {key.id: key for key in await self._keys(make=False)} if sealed else {}
        return [self._open(each, keys.get(each.key_id)) for each in sealed]

    async def derived(self, purpose: bytes) -> Sequence[bytes]:
        """Give a key of 32 bytes for something else from each master key, the present one's first; daemons that share
        theirs get the same. None where there is no master key yet, or it cannot be used.
        """
        try:
            keys = await self._keys(make=False)
        except HostUnfit as error:
            log.debug("nothing is derived from the master key", error=str(error))
            return ()
        return [hmac.digest(key.secret, purpose, "sha256") for key in keys]

    async def check(self) -> None:
        """Tell the log when something could not be opened, before somebody needs it."""
        try:
            keys = await self._keys(make=False)
            if missing := set(await self._store.master_keys()) - {key.id for key in keys}:
                raise self._lost(min(missing))
        except HostUnfit as error:
            log.error("secrets cannot be opened", error=str(error))

    async def rotate(self) -> int:
        """Make a new master key and seal everything anew with it; gives how much there was.

        The file holds both keys until everything is sealed with the new one: a crash in between loses nothing.

        Raises:
            HostUnfit: something cannot be opened; everything stays as it is.
        """
        async with self._lock:
            old = await self._keys(make=True)
            known, new = {key.id: key for key in old}, MasterKey(secret=random_bytes(Aead.KEY_SIZE))
            await self._write([new, *old])
            count = await self._store.reseal(
                lambda each: seal(new, each.context, self._open(each, known.get(each.key_id)))
            )
            needed = set(await self._store.master_keys())
            await self._write([new, *(key for key in old if key.id in needed)])
        log.info("master key changed", path=str(self._path), key=new.id, resealed=count)
        return count

    def _open(self, sealed: Sealed, key: MasterKey | None) -> bytes:
        if key is None:
            raise self._lost(sealed.key_id)
        try:
            return Aead(key.secret).decrypt(sealed.sealed, sealed.context.encode())
        except CryptoError as error:
            raise HostUnfit(
                "a secret cannot be opened",
                details=f"what is stored as {sealed.context} was not sealed as that by master key {key.id}",
                resolution="restore the database from a backup, or set the secret anew",
            ) from error

    async def _keys(self, *, make: bool) -> Sequence[MasterKey]:
        """Read the file; where there is none, and nothing to open, make it if told to."""
        try:
            return await asyncio.to_thread(_read, self._path)
        except FileNotFoundError:
            needed = await self._store.master_keys()
            if needed:
                raise self._lost(min(needed)) from None
        if not make:
            return ()
        made = [MasterKey(secret=random_bytes(Aead.KEY_SIZE))]
        await self._write(made)
        log.info("master key made", path=str(self._path), key=made[0].id)
        return made

    async def _write(self, keys: Sequence[MasterKey]) -> None:
        lines = [f"{HEADER}{base64.b64encode(key.secret).decode()}\n" for key in keys]
        await asyncio.to_thread(write_atomic, self._path, "".join(lines).encode(), mode=0o600)

    def _lost(self, key_id: str) -> HostUnfit:
        return HostUnfit(
            "the master key is lost or another one",
            details=f"secrets are sealed with master key {key_id}, which is not in {self._path}",
            resolution="put the file back from a backup; without it delete what is sealed and set it anew",
        )


def seal(key: MasterKey, context: str, value: bytes) -> Sealed:
    """Seal ``value`` as what ``context`` says."""
    sealed = bytes(Aead(key.secret).encrypt(value, context.encode()))
    return Sealed(context=context, sealed=sealed, key_id=key.id)


def _read(path: Path) -> Sequence[MasterKey]:
    mode = path.stat().st_mode
    if stat.S_IMODE(mode) & 0o077:
        raise HostUnfit(
            "the master key can be read by others",
            details=f"{path} has mode {stat.S_IMODE(mode):04o}",
            resolution=f"chmod 600 {path}; if others may have read it, change the key afterwards",
        )
    try:
        keys = [_parse(line) for line in path.read_text("ascii").splitlines() if line]
    except (ValueError, binascii.Error):
        keys = []
    if not keys:
        raise HostUnfit(
            "the master key is damaged",
            details=f"{path} does not hold a key as hearth writes it",
            resolution="put the file back from a backup",
        )
    return keys


def _parse(line: str) -> MasterKey:
    secret = base64.b64decode(line.removeprefix(HEADER), validate=True)
    if not line.startswith(HEADER) or len(secret) != Aead.KEY_SIZE:
        raise ValueError("not a key of ours")
    return MasterKey(secret=secret)
