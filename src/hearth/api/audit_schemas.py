"""Bodies of the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from hearth.api.limits import DEFAULT_LIST_LIMIT, MAX_LIST_LIMIT


class ListAudit(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query: from ``since`` on, of one ``user`` (id or name), of one ``action`` (an operation's name)."""

    since: datetime | None = None
    user: Annotated[str, Meta(min_length=1, max_length=63)] | None = None
    action: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_LIST_LIMIT)] = DEFAULT_LIST_LIMIT
    cursor: Annotated[str, Meta(max_length=512)] | None = None


class AuditView(Struct, frozen=True, kw_only=True):
    """One change, or attempt at one.

    ``object`` is what the call named, and what it made; ``status`` its answer's, 499 where the caller left before it;
    ``remote`` an address, or ``unix``. ``key`` is null for a client certificate.
    """

    id: str
    at: datetime
    user: str
    user_id: str
    action: str
    status: int
    remote: str
    request_id: str
    key: str | None = None
    object: str | None = None
    code: str | None = None


class AuditList(Struct, frozen=True, kw_only=True):
    """A page of entries, the oldest first."""

    items: list[AuditView]
    next_cursor: str | None = None
