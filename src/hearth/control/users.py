"""Who may call: API keys in, users out; users and keys made, changed and ended; the first start's administrator."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import structlog

from hearth.control.key_choice import named_key, only_key
from hearth.control.known_keys import KnownKeys
from hearth.control.vault import Vault, seal
from hearth.errors import Forbidden, InvalidInput, NotFound, Unauthenticated
from hearth.host.clock import Clock
from hearth.host.files import write_atomic
from hearth.host.identity import (
    api_key_prefix,
    hash_api_key,
    hash_signing_secret,
    new_api_key,
    new_api_key_id,
    new_signing_secret,
    new_user_id,
)
from hearth.host.threads import on_own_thread
from hearth.model import ApiKey, User, check_name
from hearth.store import refusals
from hearth.store.base import FIRST_PAGE, Page, PageRequest, Store
from hearth.store.secret_store import context_of_key
from hearth.store.user_store import NewKey, UserChanges
from hearth.tenancy import KeyKind, KeyScope

log = structlog.get_logger(__name__)

ADMIN_NAME = "admin"
MYSELF = "me"
"""Stands for the caller, so nobody may be called that."""
TOUCH_AFTER = timedelta(minutes=1)
"""A key's last use is noted this often at the most: noting each would be a write to the disk for every read."""
OF_ONE_SANDBOX = (KeyScope.READ, KeyScope.EXEC)
"""What a key for one sandbox may do: with more it could reach its owner's other things."""


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, and with which key; a client certificate has none and may all that its user may."""

    user: User
    key: ApiKey | None = None

    @property
    def scope(self) -> KeyScope:
        return KeyScope.FULL if self.key is None else self.key.scope

    @property
    def sandbox_id(self) -> str | None:
        """The only sandbox it may see."""
        return None if self.key is None else self.key.sandbox_id


@dataclass(frozen=True, kw_only=True)
class WantedKey:
    """A key to be made; ``sandbox_id`` the only one it opens, ``ttl_s`` seconds until it ends."""

    name: str = ""
    scope: KeyScope = KeyScope.FULL
    kind: KeyKind = KeyKind.BEARER
    sandbox_id: str | None = None
    ttl_s: int | None = None


@dataclass(frozen=True, kw_only=True)
class IssuedKey:
    """A new key and its secret, which is known here and now only."""

    key: ApiKey
    secret: str = field(repr=False)


class Users:
    """Use cases of users and keys. ``actor`` is who asks: administrators for anybody, others for themselves."""

    def __init__(self, store: Store, clock: Clock, vault: Vault) -> None:
        self._store = store.users
        self._clock = clock
        self._vault = vault
        self._key_file: Path | None = None
        self._known: KnownKeys[Caller] = KnownKeys()
        self.turn = asyncio.Event()
        """Set, and replaced, when users or keys change: what was opened for somebody looks again."""

    async def identify(self, token: str) -> Caller:
        """Tell who presents this API key.

        Raises:
            Unauthenticated: nobody, any more or ever.
        """
        digest = hash_api_key(token)
        known = self._known.get(digest)
        if known is not None and known.key is not None and known.key.is_valid(self._clock.now()):
            return known
        generation = self._known.generation
        user, key = await self._store.authenticate(digest)
        caller = await self.noted(Caller(user=user, key=key))
        self._known.keep(digest, caller, generation)
        return caller

    async def noted(self, caller: Caller) -> Caller:
        """Note that a caller's key is used."""
        key, now = caller.key, self._clock.now()
        if key is not None and (key.last_used_at is None or now - key.last_used_at >= TOUCH_AFTER):
            await self._store.touch_key(key.id)
        return caller

    async def authenticate(self, token: str) -> User:
        """Tell whose key it is, for calls that may do all that the user may.

        Raises:
            Unauthenticated: nobody's, any more or ever.
            Forbidden: the key may not do everything.
        """
        caller = await self.identify(token)
        require_scope(caller, KeyScope.FULL)
        return caller.user

    async def certified(self, names: Sequence[str]) -> Caller:
        """Tell who presents a client certificate in these names.

        Raises:
            Unauthenticated: none of them, or more than one, is a user's.
        """
        found = {}
        for name in names:
            try:
                user = await self._store.find(name)
            except NotFound:
                continue
            found[user.id] = user
        if len(found) != 1:
            raise Unauthenticated(
                "the client certificate is nobody's" if not found else "the client certificate is several users'",
                details="its names are those of no user" if not found else "its names are those of several users",
                resolution="use a certificate whose common name or alternative name is a user's, or a token",
            )
        return Caller(user=next(iter(found.values())))

    async def create(self, actor: User, name: str, *, admin: bool = False) -> tuple[User, IssuedKey]:
        """Make a user with a first key.

        Raises:
            Forbidden: ``actor`` is no administrator.
            InvalidInput, Conflict: the name cannot be used, or is.
        """
        require_administrator(actor)
        user = User(id=new_user_id(), name=_check_user_name(name), admin=admin)
        await self._store.create(user)
        log.info("user made", user=user.name, admin=admin, by=actor.name)
        return await self._store.get(user.id), await self._issue(user, WantedKey())

    async def get(self, actor: User, reference: str) -> User:
        """Find a user by id or name; ``me`` is the actor.

        Raises:
            NotFound: there is none, or the actor may not know.
        """
        if reference in (MYSELF, actor.id, actor.name):
            return await self._store.get(actor.id)
        if not actor.admin:
            raise refusals.not_found("user", reference)
        try:
            return await self._store.get(reference)
        except NotFound:
            return await self._store.find(reference)

    async def list(self, actor: User, page: PageRequest = FIRST_PAGE) -> Page[User]:
        """Give a page of all users. Raises Forbidden unless the actor is administrator."""
        require_administrator(actor)
        return await self._store.list(page)

    async def change(self, actor: User, reference: str, changes: UserChanges) -> User:
        """Change a user's name or rights.

        Raises:
            NotFound: no such user, or the actor may not know.
            Forbidden: the actor is no administrator.
            InvalidInput, Conflict: the name cannot be used, or nobody would be administrator any more.
        """
        user = await self.get(actor, reference)
        require_administrator(actor)
        if changes.name is not None:
            _check_user_name(changes.name)
        with self._changing():
            changed = await self._store.change(user.id, changes)
        log.info("user changed", user=changed.name, admin=changed.admin, by=actor.name)
        return changed

    async def delete(self, actor: User, reference: str) -> None:
        """Delete a user who owns nothing any more.

        Raises:
            NotFound: no such user, or the actor may not know.
            Forbidden: the actor is no administrator.
            Conflict: the user owns something, or is the only administrator.
        """
        user = await self.get(actor, reference)
        require_administrator(actor)
        with self._changing():
            await self._store.delete(user.id)
        log.info("user deleted", user=user.name, by=actor.name)

    async def keys(self, actor: User, reference: str) -> Sequence[ApiKey]:
        """Give all keys of a user, oldest first. Raises NotFound."""
        return await self._store.list_keys((await self.get(actor, reference)).id)

    async def add_key(self, actor: User, reference: str, wanted: WantedKey) -> IssuedKey:
        """Make a further key.

        Raises:
            NotFound: no such user.
            InvalidInput: what is wanted makes no sense.
            Conflict: the user has too many.
            HostUnfit: a key that signs needs the master key, which is lost.
        """
        if wanted.sandbox_id is not None and wanted.scope not in OF_ONE_SANDBOX:
            raise InvalidInput(
                "a key for one sandbox may read or exec",
                details=f"scope is {wanted.scope}",
                resolution="say scope read or exec, or leave the sandbox out",
                field="scope",
            )
        return await self._issue(await self.get(actor, reference), wanted)

    async def rotate_key(self, caller: Caller, reference: str, *, old: str | None, overlap_s: int) -> IssuedKey:
        """Make a key in place of another, which stays valid for ``overlap_s`` more seconds.

        The key of the host's own command line is replaced in its file, too.

        Args:
            old: id or name of the other; None is the one the caller has, else the only valid one.

        Raises:
            NotFound: no such user, or no such valid key.
            Conflict: it is not clear which key is meant.
        """
        user = await self.get(caller.user, reference)
        valid = await self._valid_keys(user)
        own = caller.key.id if caller.key and caller.user.id == user.id else None
        named = old or own
        replaced = only_key(valid) if named is None else named_key(valid, named)
        now = self._clock.now()
        lives = None if replaced.expires_at is None else replaced.expires_at - replaced.created_at
        wanted = WantedKey(name=replaced.name, scope=replaced.scope, kind=replaced.kind, sandbox_id=replaced.sandbox_id)
        key = replace(_new_key(user, wanted, now), expires_at=None if lives is None else now + lives)
        in_file = await self._key_in_file()
        issued = await self._store_key(key, replaces=replaced.id, ends_at=now + timedelta(seconds=overlap_s))
        if self._key_file is not None and in_file == replaced.id:
            await on_own_thread("key file", partial(_write, self._key_file, issued.secret))
        log.info("key replaced", user=user.name, key=replaced.id, by=issued.key.id, overlap_s=overlap_s)
        return issued

    async def revoke_key(self, actor: User, reference: str, named: str) -> None:
        """End a key now, of this id or name. Raises NotFound, and Conflict where several have the name."""
        user = await self.get(actor, reference)
        key = named_key(await self._valid_keys(user), named)
        with self._changing():
            await self._store.revoke_key(key.id)
        log.info("key revoked", user=user.name, key=key.id)

    async def _valid_keys(self, user: User) -> Sequence[ApiKey]:
        now = self._clock.now()
        return [key for key in await self._store.list_keys(user.id) if key.is_valid(now)]

    async def ensure_admin(self, key_file: Path) -> None:
        """Make sure there is an administrator whose key lies in ``key_file`` (0600), for the host's own CLI.

        A key file that belongs to no user of this database (a database restored or made anew) is registered again
        only by replacing it: an old key never comes back to life.
        """
        try:
            admin = await self._store.find(ADMIN_NAME)
        except NotFound:
            admin = User(id=new_user_id(), name=ADMIN_NAME, admin=True)
            await self._store.create(admin)
        self._key_file = key_file
        if await self._key_in_file() is not None:
            return
        issued = await self._issue(admin, WantedKey())
        _write(key_file, issued.secret)
        log.info("administrator's key written", path=str(key_file))

    async def _key_in_file(self) -> str | None:
        """Give the id of the key that the host's own command line has; None: it opens nothing."""
        if self._key_file is None:
            return None
        try:
            caller = await self.identify(_read(self._key_file))
            require_scope(caller, KeyScope.FULL)
        except (OSError, Unauthenticated, Forbidden):
            return None
        return None if caller.key is None else caller.key.id

    async def _issue(self, user: User, wanted: WantedKey) -> IssuedKey:
        issued = await self._store_key(_new_key(user, wanted, self._clock.now()))
        log.info("key made", user=user.name, key=issued.key.id, scope=wanted.scope.value, kind=wanted.kind.value)
        return issued

    async def _store_key(
        self, key: ApiKey, *, replaces: str | None = None, ends_at: datetime | None = None
    ) -> IssuedKey:
        if key.kind is KeyKind.BEARER:
            secret = new_api_key()
            key = replace(key, prefix=api_key_prefix(secret))
            await self._keep(NewKey(key=key, digest=hash_api_key(secret)), replaces, ends_at)
            return IssuedKey(key=key, secret=secret)
        secret = new_signing_secret()
        key = replace(key, prefix=api_key_prefix(secret))
        async with self._vault.sealing() as master:
            sealed = seal(master, context_of_key(key.id), secret.encode())
            new = NewKey(key=key, digest=hash_signing_secret(secret), sealed=sealed.sealed, sealed_by=sealed.key_id)
            await self._keep(new, replaces, ends_at)
        return IssuedKey(key=key, secret=secret)

    async def _keep(self, new: NewKey, replaces: str | None, ends_at: datetime | None) -> None:
        with self._changing():
            if replaces is None or ends_at is None:
                await self._store.add_key(new)
            else:
                await self._store.replace_key(replaces, new, ends_at=ends_at)

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Have nobody pass with what was read before the block ended, however it ends."""
        try:
            yield
        finally:
            self._known.forget()
            self.turn.set()
            self.turn = asyncio.Event()


def require_administrator(user: User) -> None:
    """Refuse what only administrators do. Raises Forbidden."""
    if not user.admin:
        raise Forbidden(
            "only administrators may do that", details=f"{user.name} is none", resolution="ask an administrator"
        )


def require_scope(caller: Caller, needed: KeyScope) -> None:
    """Refuse what a caller's key is not for. Raises Forbidden."""
    if not caller.scope.allows(needed) or (needed is KeyScope.FULL and caller.sandbox_id is not None):
        raise Forbidden(
            "the API key may not do that",
            details=f"its scope is {caller.scope}, this needs {needed}",
            resolution="use a key of a wider scope",
        )


def _new_key(user: User, wanted: WantedKey, now: datetime) -> ApiKey:
    return ApiKey(
        id=new_api_key_id(),
        user_id=user.id,
        prefix="",
        created_at=now,
        expires_at=None if wanted.ttl_s is None else now + timedelta(seconds=wanted.ttl_s),
        name=wanted.name,
        kind=wanted.kind,
        scope=wanted.scope,
        sandbox_id=wanted.sandbox_id,
    )


def _check_user_name(name: str) -> str:
    if check_name(name) == MYSELF:
        raise InvalidInput(
            "invalid name", details=f"{MYSELF!r} stands for the caller", resolution="choose another name", field="name"
        )
    return name


def _write(key_file: Path, secret: str) -> None:
    write_atomic(key_file, f"{secret}\n".encode(), mode=0o600)


def _read(key_file: Path) -> str:
    return key_file.read_text().strip()
