"""Sealed secrets in memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from hearth.store import refusals
from hearth.store.base import FIRST_PAGE, Page, PageRequest
from hearth.store.memory_tables import Tables, page_of
from hearth.store.secret_store import MAX_SECRETS, Reseal, Sealed, context_of_key, context_of_secret
from hearth.tenancy import SealedSecret


class MemorySecrets:
    """``SecretStore`` in memory."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def put(self, secret: SealedSecret) -> SealedSecret:
        if secret.owner not in self._tables.users:
            raise refusals.not_found("user", secret.owner)
        known = self._tables.secrets.get((secret.owner, secret.name))
        if known is not None:
            secret = dataclasses.replace(secret, created_at=known.created_at)
        elif len(self._of(secret.owner)) >= MAX_SECRETS:
            raise refusals.too_many_secrets(MAX_SECRETS)
        self._tables.secrets[secret.owner, secret.name] = secret
        return secret

    async def get(self, owner: str, names: Collection[str]) -> Sequence[SealedSecret]:
        return [secret for secret in self._of(owner) if secret.name in names]

    async def list(self, owner: str, page: PageRequest = FIRST_PAGE) -> Page[SealedSecret]:
        return page_of(self._of(owner), page, lambda secret: (secret.created_at, secret.name))

    async def delete(self, owner: str, name: str) -> None:
        if self._tables.secrets.pop((owner, name), None) is None:
            raise refusals.not_found("secret", name)

    async def master_keys(self) -> Collection[str]:
        of_keys = {new.sealed_by for new in self._tables.keys.values() if new.sealed_by is not None}
        return {secret.key_id for secret in self._tables.secrets.values()} | of_keys

    async def reseal(self, reseal: Reseal) -> int:
        secrets, keys = dict(self._tables.secrets), dict(self._tables.keys)
        count = 0
        for place, secret in secrets.items():
            made = reseal(Sealed(context=context_of_secret(*place), sealed=secret.sealed, key_id=secret.key_id))
            secrets[place] = dataclasses.replace(secret, sealed=made.sealed, key_id=made.key_id)
            count += 1
        for key_id, new in keys.items():
            if new.sealed is None or new.sealed_by is None:
                continue
            made = reseal(Sealed(context=context_of_key(key_id), sealed=new.sealed, key_id=new.sealed_by))
            keys[key_id] = dataclasses.replace(new, sealed=made.sealed, sealed_by=made.key_id)
            count += 1
        self._tables.secrets, self._tables.keys = secrets, keys
        return count

    def _of(self, owner: str) -> Sequence[SealedSecret]:
        return [secret for secret in self._tables.secrets.values() if secret.owner == owner]
