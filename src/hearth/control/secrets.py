"""Use cases of secrets: keep, list, forget; and open them for the sandboxes and commands they are for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from hearth.bounds import MAX_SECRET_BYTES
from hearth.control.users import require_administrator
from hearth.control.vault import Vault, seal
from hearth.errors import Conflict, InvalidInput
from hearth.host.clock import Clock
from hearth.jobs.secrets import NOTHING_INJECTED, Injected
from hearth.model import Sandbox, User
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.refusals import not_found
from hearth.store.secret_store import Sealed, SecretStore, context_of_secret
from hearth.tenancy import SECRET_NAME_PATTERN, SealedSecret, SecretUse

log = structlog.get_logger(__name__)


class Secrets:
    """The secrets of all users; each call is about the caller's own."""

    def __init__(self, store: SecretStore, vault: Vault, clock: Clock) -> None:
        self._store = store
        self._vault = vault
        self._clock = clock

    async def put(self, user: User, name: str, value: bytes) -> SealedSecret:
        """Keep a secret, or give one that is there a new value: what starts from now on has that.

        Raises:
            InvalidInput: the name or the size cannot be.
            Conflict: there are too many.
            HostUnfit: the master key is lost.
        """
        if SECRET_NAME_PATTERN.fullmatch(name) is None:
            raise InvalidInput(
                "invalid name",
                details=f"name {name[:80]!r} is no name of a variable",
                resolution="use letters, digits and '_', not beginning with a digit",
                field="name",
            )
        if not 0 < len(value) <= MAX_SECRET_BYTES:
            raise InvalidInput(
                "invalid value",
                details=f"it has {len(value)} bytes",
                resolution=f"use 1 to {MAX_SECRET_BYTES} bytes; larger things belong into a volume",
                field="value",
            )
        async with self._vault.sealing() as key:
            made = seal(key, context_of_secret(user.id, name), value)
            now = self._clock.now()
            stored = await self._store.put(
                SealedSecret(
                    owner=user.id, name=name, sealed=made.sealed, key_id=made.key_id, created_at=now, updated_at=now
                )
            )
        log.info("secret kept", user=user.name, name=name)
        return stored

    async def list(self, user: User, page: PageRequest = FIRST_PAGE) -> Page[SealedSecret]:
        """Give a page of the user's own, oldest first."""
        return await self._store.list(user.id, page)

    async def delete(self, user: User, name: str) -> None:
        """Forget one: what starts from now on does not have it. Raises NotFound."""
        await self._store.delete(user.id, name)
        log.info("secret deleted", user=user.name, name=name)

    async def require(self, user: User, uses: Sequence[SecretUse], *, isolated: bool) -> None:
        """Refuse uses that a new sandbox cannot have, before anything is done.

        Args:
            isolated: its machine has files of its own.

        Raises:
            NotFound: there is no such secret.
            InvalidInput: two are to be the same variable, or one cannot be a variable.
            Conflict: the engine's machines take no files.
            HostUnfit: one cannot be opened.
        """
        if not isolated and any(use.env is None for use in uses):
            raise Conflict(
                "this engine's machines take no secrets as files",
                details="what they write lies on this host",
                resolution="take them as variables",
                field="secrets",
            )
        names = [use.env or f"file {use.name}" for use in uses]
        if doubled := {name for name in names if names.count(name) > 1}:
            raise InvalidInput(
                "invalid secrets",
                details=f"{min(doubled)} is there twice",
                resolution="give each a place of its own",
                field="secrets",
            )
        await self._opened(user.id, uses, missing_is_fine=False)

    async def environment(self, user: User, uses: Sequence[SecretUse]) -> Mapping[str, str]:
        """Give variables for a command. Raises as ``require``."""
        await self.require(user, uses, isolated=False)
        return (await self._opened(user.id, uses, missing_is_fine=False)).env if uses else {}

    async def injected(self, sandbox: Sandbox) -> Injected:
        """Give what a sandbox is to have now; secrets deleted since are left out.

        Raises:
            HostUnfit: one cannot be opened.
        """
        if not sandbox.spec.secrets:
            return NOTHING_INJECTED
        return await self._opened(sandbox.owner, sandbox.spec.secrets, missing_is_fine=True)

    async def rotate_master_key(self, actor: User) -> int:
        """Make a new master key; gives how much was sealed anew.

        Raises:
            Forbidden: the actor is no administrator.
            HostUnfit: something cannot be opened; everything stays as it is.
        """
        require_administrator(actor)
        return await self._vault.rotate()

    async def _opened(self, owner: str, uses: Sequence[SecretUse], *, missing_is_fine: bool) -> Injected:
        found = {secret.name: secret for secret in await self._store.get(owner, {use.name for use in uses})}
        for use in uses:
            if use.name not in found:
                if not missing_is_fine:
                    raise not_found("secret", use.name)
                log.warning("secret left out: it is not there any more", owner=owner, name=use.name)
        known = [use for use in uses if use.name in found]
        values = await self._vault.open(
            [
                Sealed(
                    context=context_of_secret(owner, use.name),
                    sealed=found[use.name].sealed,
                    key_id=found[use.name].key_id,
                )
                for use in known
            ]
        )
        env, files = {}, {}
        for use, value in zip(known, values, strict=True):
            if use.env is None:
                files[use.name] = value
            else:
                env[use.env] = _text(use, value)
        return Injected(env=env, files=files)


def _text(use: SecretUse, value: bytes) -> str:
    """Give a value as a variable's. Raises InvalidInput, which does not show it."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise InvalidInput(
            "a secret cannot be a variable",
            details=f"the value of {use.name} is not text, or holds a NUL character",
            resolution="take it as a file",
            field="secrets",
        ) from None
    return text
