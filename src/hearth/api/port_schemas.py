"""Bodies of what concerns the ports of sandboxes: which listen, which are published. Conventions as in ``schemas``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from hearth.api.schemas import Name

Port = Annotated[int, Meta(ge=1, le=65_535, description="A TCP port inside the sandbox.")]


class PortView(Struct, frozen=True, kw_only=True):
    """A port that something in a sandbox listens on.

    ``proxy_url`` is where the API passes requests on to it, ``public_url`` where everybody's come from, if it is
    published. Both may begin at the root of this daemon's address.
    """

    sandbox_id: str
    sandbox: str
    port: int
    address: str
    process: str | None = None
    pid: int | None = None
    proxy_url: str
    public_url: str | None = None


class PortList(Struct, frozen=True, kw_only=True):
    """``asleep`` names the sandboxes that were not asked, since asking would have woken them."""

    items: list[PortView]
    asleep: list[str] = []


class PublishPort(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A port to publish. Without ``alias`` one is made of the sandbox's name."""

    port: Port
    alias: Name | None = None


class CertificateView(Struct, frozen=True, kw_only=True):
    """How it stands with the certificate of a public URL.

    ``expires_at`` is that of the one in use; ``error`` tells of the last order, if it failed, ``retry_at`` of the next.
    """

    state: Literal["ready", "ordered", "failed"]
    expires_at: datetime | None = None
    error: str | None = None
    retry_at: datetime | None = None


class PublicationView(Struct, frozen=True, kw_only=True):
    """A port that everybody can reach without a token, under ``url``.

    ``certificate`` is there where the daemon orders certificates; ``sandbox`` and ``owner``, names both, in the list of
    all publications.
    """

    sandbox_id: str
    port: int
    alias: str
    url: str
    created_at: datetime
    certificate: CertificateView | None = None
    sandbox: str | None = None
    owner: str | None = None


class PublicationList(Struct, frozen=True, kw_only=True):
    """``next_cursor`` is absent on the last page; a sandbox's own are on one."""

    items: list[PublicationView]
    next_cursor: str | None = None
