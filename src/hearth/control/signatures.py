"""Signed requests (HMAC-SHA256): for clients that shall not send their key. Each signature is good once.

What is signed is ``method \\n target \\n timestamp \\n SHA-256(body)``, the target with its query, as sent.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hearth.control.users import Caller, Users
from hearth.control.vault import Vault
from hearth.errors import Unauthenticated
from hearth.host.clock import Clock
from hearth.store.refusals import bad_key
from hearth.store.secret_store import Sealed, context_of_key
from hearth.store.user_store import SigningKey, UserStore

WINDOW_S = 300
"""So far a request's time may be from ours, either way."""
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class SignedRequest:
    """What came: the key's id, the signature in hex, the time in unix seconds as text, and what was asked."""

    key_id: str
    signature: str = field(repr=False)
    timestamp: str
    method: str
    target: str


class Signatures:
    """Checks signatures."""

    def __init__(self, store: UserStore, users: Users, vault: Vault, clock: Clock) -> None:
        self._store = store
        self._users = users
        self._vault = vault
        self._clock = clock

    async def known(self, request: SignedRequest) -> SigningKey:
        """Give the key of a request that is in time; its body need not be read for others.

        Raises:
            Unauthenticated: the time is not now, or there is no such valid key.
        """
        if _TIMESTAMP.fullmatch(request.timestamp) is None:
            raise _refused("X-Timestamp is not a number of seconds since 1970", "send the time as 'date +%s' gives it")
        apart_s = abs(self._clock.now().timestamp() - int(request.timestamp))
        if apart_s > WINDOW_S:
            raise _refused(
                f"X-Timestamp is {apart_s:.0f} s from the daemon's time, at most {WINDOW_S} s are possible",
                "set the clock, and sign each request anew",
            )
        if _SIGNATURE.fullmatch(request.signature) is None:
            raise _refused("the signature is not 64 hexadecimal digits in lower case", "send HMAC-SHA256 in hex")
        return await self._store.signing_key(request.key_id)

    async def check(self, request: SignedRequest, key: SigningKey, body: bytes) -> Caller:
        """Tell who signed a request with ``body``, and let nobody send the same again.

        Raises:
            Unauthenticated: the signature is not the key's for this request, or was used before.
            HostUnfit: the master key that opens the key is lost.
        """
        sealed = Sealed(context=context_of_key(key.key.id), sealed=key.sealed, key_id=key.sealed_by)
        (secret,) = await self._vault.open([sealed])
        if not hmac.compare_digest(sign(secret, request, body), request.signature):
            raise bad_key()
        signed_at = datetime.fromtimestamp(int(request.timestamp), UTC)
        seen = hashlib.sha256(f"{request.key_id}:{request.signature}".encode()).hexdigest()
        if not await self._store.note_signature(seen, signed_at + timedelta(seconds=WINDOW_S + 1)):
            raise _refused("this signature was used before", "sign each request anew, with another time")
        return await self._users.noted(Caller(user=key.user, key=key.key))


def sign(secret: bytes, request: SignedRequest, body: bytes) -> str:
    """Give the signature of a request, in hex."""
    digest = hashlib.sha256(body).hexdigest()
    text = f"{request.method}\n{request.target}\n{request.timestamp}\n{digest}"
    return hmac.new(secret, text.encode(), "sha256").hexdigest()


def _refused(details: str, resolution: str) -> Unauthenticated:
    return Unauthenticated("the signature is not valid", details=details, resolution=resolution)
