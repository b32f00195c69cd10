"""What the stores in memory share, and how they cut pages of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeVar

from hearth.execs import Exec
from hearth.model import Ending, Job, NamedVolume, Publication, Sandbox, Snapshot, User, VolumePlacement
from hearth.store.answer_store import Answer
from hearth.store.base import Page, PageRequest
from hearth.store.paging import Position, cut_page, read_request
from hearth.store.template_store import Template
from hearth.store.user_store import NewKey
from hearth.tenancy import AuditEntry, SealedSecret
from hearth.webhooks import Delivery, Webhook

T = TypeVar("T")


@dataclasses.dataclass(kw_only=True)
class Tables:
    """Keyed by id (endings by the sandbox's, secrets by owner and name, answers by user and key, placements by
    sandbox's and volume's, publications by alias)."""

    users: dict[str, tuple[datetime, User]] = dataclasses.field(default_factory=dict)
    keys: dict[str, NewKey] = dataclasses.field(default_factory=dict)
    signatures: dict[str, datetime] = dataclasses.field(default_factory=dict)
    quotas: dict[str, dict[str, int | None]] = dataclasses.field(default_factory=dict)
    audit: list[AuditEntry] = dataclasses.field(default_factory=list)
    secrets: dict[tuple[str, str], SealedSecret] = dataclasses.field(default_factory=dict)
    sandboxes: dict[str, Sandbox] = dataclasses.field(default_factory=dict)
    templates: dict[str, Template] = dataclasses.field(default_factory=dict)
    snapshots: dict[str, Snapshot] = dataclasses.field(default_factory=dict)
    endings: dict[str, Ending] = dataclasses.field(default_factory=dict)
    volumes: dict[str, NamedVolume] = dataclasses.field(default_factory=dict)
    placements: dict[tuple[str, str], VolumePlacement] = dataclasses.field(default_factory=dict)
    publications: dict[str, Publication] = dataclasses.field(default_factory=dict)
    execs: dict[str, Exec] = dataclasses.field(default_factory=dict)
    jobs: dict[str, Job] = dataclasses.field(default_factory=dict)
    webhooks: dict[str, Webhook] = dataclasses.field(default_factory=dict)
    deliveries: dict[str, Delivery] = dataclasses.field(default_factory=dict)
    answers: dict[tuple[str, str], Answer] = dataclasses.field(default_factory=dict)


def page_of(rows: Iterable[T], page: PageRequest, position: Callable[[T], Position]) -> Page[T]:
    """Give the ``page`` of ``rows`` in the order of their ``position``.

    Raises:
        InvalidInput: limit or cursor are not acceptable.
    """
    limit, after = read_request(page)
    ordered = sorted((row for row in rows if after is None or position(row) > after), key=position)
    return cut_page(ordered[: limit + 1], limit, position)
