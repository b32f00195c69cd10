"""Publishes ports of sandboxes: an alias for everybody, no token asked, the sandbox woken by whoever comes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

import structlog

from hearth.control.pages import every
from hearth.control.sandboxes import Sandboxes
from hearth.errors import Conflict, InvalidInput, NotFound
from hearth.host.clock import Clock
from hearth.host.identity import new_id
from hearth.model import Publication, Sandbox, User, check_name, check_range
from hearth.store.base import AliasTaken, Page, PageRequest, Store
from hearth.store.publication_store import NamedPublication

log = structlog.get_logger(__name__)

MAX_PORT = 65_535
MAX_PER_SANDBOX = 32
MAX_ALIAS_CHARACTERS = 63
RESERVED = frozenset(
    {
        *("admin", "administrator", "api", "app", "auth", "blog", "cdn", "console", "dashboard", "dns", "docs", "ftp"),
        *(
            "health",
            "hearth",
            "help",
            "host",
            "imap",
            "internal",
            "local",
            "localhost",
            "login",
            "mail",
            "metrics",
            "mx",
        ),
        *("ns", "ns1", "ns2", "pop", "pop3", "postmaster", "proxy", "public", "root", "security", "smtp", "ssl"),
        *("static", "status", "support", "sso", "system", "webmail", "wpad", "www"),
    }
)
"""Names that people, mail or browsers would take for the operator's own."""
PUNYCODE = "xn--"
PUBLIC_PATH = "/p/"
"""What stands before an alias in paths."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What ``publish`` answers: the publication, and whether this call made it."""

    publication: Publication
    new: bool


@dataclass(frozen=True, kw_only=True)
class PublicAddress:
    """Where the public comes in; without ``host`` by the API's own addresses.

    ``zone`` is a DNS name of the operator's: its labels are the aliases. Without one aliases are parts of the path.
    """

    scheme: str = "http"
    host: str | None = None
    port: int = 80
    zone: str | None = None

    def url(self, alias: str) -> str:
        """Give the URL of an alias; it begins with a slash where only the path is known."""
        host = self.host if self.zone is None else f"{alias}.{self.zone}"
        path = f"{PUBLIC_PATH}{alias}/" if self.zone is None else "/"
        if host is None:
            return path
        usual = {"http": 80, "https": 443}[self.scheme] == self.port
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}{'' if usual else f':{self.port}'}{path}"


@dataclass(frozen=True, kw_only=True)
class CertificateState:
    """How it stands with the certificate of a public name.

    ``expires_at`` is that of the certificate in use; ``error`` and ``retry_at`` tell of the last order, if it failed.
    """

    state: Literal["ready", "ordered", "failed"]
    expires_at: datetime | None = None
    error: str | None = None
    retry_at: datetime | None = None


class Certificates(Protocol):
    """Whoever orders certificates for public names."""

    def told(self, alias: str) -> CertificateState:
        """Tell how it stands with an alias's."""
        ...

    def wanted(self) -> None:
        """Hear that there is a new name."""
        ...


class Publishing:
    """The publications of all users of this host.

    ``address``, and ``certificates`` where they are ordered, are told by whoever listens for the public.
    """

    address: PublicAddress = PublicAddress()
    certificates: Certificates | None = None

    def __init__(self, *, store: Store, sandboxes: Sandboxes, clock: Clock) -> None:
        self._store = store
        self._sandboxes = sandboxes
        self._clock = clock

    async def publish(self, user: User, reference: str, port: int, alias: str | None = None) -> Published:
        """Give a port an alias; one is made of the sandbox's name where none is given. The same again is fine.

        Raises:
            NotFound: no such sandbox.
            InvalidInput: no such port, or the alias is no DNS label or reserved.
            AliasTaken: something else has it.
            Conflict: the port has another alias, or the sandbox too many.
        """
        check_range(port, 1, MAX_PORT, what="port")
        if alias is not None:
            check_alias(alias)
        sandbox = await self._sandboxes.get(user, reference)
        existing = await self._store.publications.of_sandbox(sandbox.id)
        for known in existing:
            if known.port == port and alias in (None, known.alias):
                return Published(publication=known, new=False)
        if len(existing) >= MAX_PER_SANDBOX:
            raise Conflict(
                "the sandbox has too many publications",
                details=f"{sandbox.spec.name} has {len(existing)}",
                resolution="take one away first",
            )
        made = await self._create(sandbox, port, alias)
        if self.certificates is not None:
            self.certificates.wanted()
        log.info("port published", sandbox=sandbox.id, port=port, alias=made.alias)
        return Published(publication=made, new=True)

    async def _create(self, sandbox: Sandbox, port: int, alias: str | None) -> Publication:
        for candidate in (alias,) if alias is not None else proposals(sandbox.spec.name, port):
            publication = Publication(alias=candidate, sandbox_id=sandbox.id, port=port, created_at=self._clock.now())
            with contextlib.suppress(*(() if alias is not None else (AliasTaken,))):
                await self._store.publications.create(publication)
                return publication
        raise Conflict("no free alias was found", resolution="choose one yourself", field="alias")

    async def list(self, user: User, reference: str) -> Sequence[Publication]:
        """Give a sandbox's publications, by port. Raises NotFound."""
        return await self._store.publications.of_sandbox((await self._sandboxes.get(user, reference)).id)

    async def page(self, user: User, page: PageRequest) -> Page[NamedPublication]:
        """Give a page of all the user's publications (everybody's for an administrator), oldest first."""
        return await self._store.publications.list(None if user.admin else user.id, page=page)

    async def aliases(self) -> Sequence[str]:
        """Give every alias of this host."""
        found = await every(lambda page: self._store.publications.list(None, page=page))
        return [each.publication.alias for each in found]

    async def unpublish(self, user: User, reference: str, port: int) -> None:
        """Take an alias away.

        Raises:
            NotFound: no such sandbox, or the port is not published.
        """
        sandbox = await self._sandboxes.get(user, reference)
        gone = await self._store.publications.delete(sandbox.id, port)
        log.info("port unpublished", sandbox=sandbox.id, port=port, alias=gone.alias)

    async def find(self, alias: str) -> tuple[Publication, Sandbox]:
        """Tell what an alias leads to. Raises NotFound."""
        if len(alias) > MAX_ALIAS_CHARACTERS:
            raise NotFound("no such publication")
        publication = await self._store.publications.find(alias)
        return publication, await self._store.sandboxes.get(publication.sandbox_id)


def check_alias(alias: str) -> str:
    """Accept a DNS label that nobody could take for something else.

    Raises:
        InvalidInput: names the field ``alias``.
    """
    check_name(alias, what="alias")
    if alias in RESERVED or alias.startswith(PUNYCODE):
        raise InvalidInput(
            "the alias is reserved",
            details=f"{alias!r} could be taken for something else than a sandbox",
            resolution="choose another",
            field="alias",
        )
    return alias


def proposals(name: str, port: int) -> Iterator[str]:
    """Give aliases for a port of a sandbox, the nicest first."""
    room = MAX_ALIAS_CHARACTERS - len("-65535-") - 8
    stem = name[:room].strip("-")
    if name not in RESERVED and not name.startswith(PUNYCODE):
        yield name
    stem = f"box-{stem}" if stem.startswith(PUNYCODE) else stem
    yield f"{stem}-{port}"
    for _ in range(4):
        yield f"{stem}-{port}-{new_id('x').rpartition('-')[2][:8]}"
