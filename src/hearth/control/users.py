"""Who may call: API keys in, users out; and the administrator that the first start creates."""

from __future__ import annotations

from pathlib import Path

import structlog

from hearth.errors import NotFound, Unauthenticated
from hearth.host.clock import Clock
from hearth.host.files import write_atomic
from hearth.host.identity import (
    API_KEY_PREFIX_CHARACTERS,
    hash_api_key,
    new_api_key,
    new_api_key_id,
    new_user_id,
)
from hearth.model import ApiKey, User
from hearth.store.base import UserStore

log = structlog.get_logger(__name__)

ADMIN_NAME = "admin"


class Users:
    """Use cases of users and keys."""

    def __init__(self, store: UserStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def authenticate(self, token: str) -> User:
        """Tell who presents this API key.

        Raises:
            Unauthenticated: nobody, any more or ever.
        """
        user, _ = await self._store.authenticate(hash_api_key(token))
        return user

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
        if await self._opens(key_file):
            return
        key = new_api_key()
        now = self._clock.now()
        record = ApiKey(id=new_api_key_id(), user_id=admin.id, prefix=key[:API_KEY_PREFIX_CHARACTERS], created_at=now)
        await self._store.add_key(record, hash_api_key(key))
        write_atomic(key_file, f"{key}\n".encode(), mode=0o600)
        log.info("administrator's key written", path=str(key_file))

    async def _opens(self, key_file: Path) -> bool:
        try:
            await self.authenticate(_read(key_file))
        except (OSError, Unauthenticated):
            return False
        return True


def _read(key_file: Path) -> str:
    return key_file.read_text().strip()
