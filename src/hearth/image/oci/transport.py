"""HTTP with registries: patience with what may pass, redirects by hand, credentials for whom they are and nobody else.

OciError
├── RegistryUnreachable   it does not answer, or not in a way that helps: worth another try later
├── RegistryRefused       it says no
└── RegistryNotFound      it has no such thing, or does not say
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import random
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urljoin, urlsplit

import httpcore

from hearth.errors import Code, HearthError
from hearth.image.layers.refused import refused
from hearth.image.oci.addresses import HTTPS_PORT, GuardedBackend, Registries
from hearth.version import VERSION

ATTEMPTS = 5
BACKOFF_S = 0.5
MAX_WAIT_S = 60.0
"""Longest pause that a registry may ask for."""
CONNECT_S, READ_S = 15.0, 60.0
MAX_REDIRECTS = 5
PATIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
BROKEN = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.RemoteProtocolError)
"""What may be better the next time."""
MAX_CONNECTIONS = 8


class OciError(HearthError):
    """The root of what goes wrong with registries."""

    code = Code.UNAVAILABLE


class RegistryUnreachable(OciError):
    """It did not answer, several times."""


class RegistryRefused(OciError):
    """Whoever asks may not have it, or is not known."""

    code = Code.INVALID


class RegistryNotFound(OciError):
    """There is nothing of that name that whoever asks may see."""

    code = Code.NOT_FOUND


@dataclass(frozen=True, kw_only=True)
class Url:
    """An address taken apart."""

    scheme: str
    host: str
    port: int
    target: str

    @classmethod
    def of(cls, text: str) -> Url:
        """Read one. Raises ImageRefused where it is not one of HTTP."""
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise refused(f"the registry leads to what is no address: {text[:200]!r}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise refused(f"the registry leads to what is no address of the web: {text[:200]!r}")
        default = HTTPS_PORT if parts.scheme == "https" else 80
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(scheme=parts.scheme, host=parts.hostname.lower(), port=port or default, target=target)

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.target}"


@dataclass(kw_only=True)
class Answer:
    """An answer whose body is still to be read: iterate."""

    status: int
    headers: Mapping[str, str]
    url: Url
    response: httpcore.Response = field(repr=False)

    async def read(self, max_bytes: int) -> bytes:
        """Give the whole body. Raises ImageRefused where it is larger than that."""
        data = bytearray()
        async for piece in self.response.aiter_stream():
            data += piece
            if len(data) > max_bytes:
                raise refused(f"{self.url.host} sent more than {max_bytes} bytes where a document was asked for")
        return bytes(data)

    async def pieces(self) -> AsyncIterator[bytes]:
        async for piece in self.response.aiter_stream():
            yield piece


class Transport:
    """Connections to registries, for one image; close it."""

    def __init__(self, registries: Registries) -> None:
        self.registries = registries
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            network_backend=GuardedBackend(registries),
            max_connections=MAX_CONNECTIONS,
            keepalive_expiry=30.0,
        )

    async def close(self) -> None:
        await self._pool.aclose()

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, url: Url, *, headers: Mapping[str, str], authorization: str | None = None
    ) -> AsyncIterator[Answer]:
        """Ask, and follow where it leads; ``authorization`` goes to the origin of ``url`` alone.

        A failure while the body is being read is the caller's: only that knows what it has.

        Raises:
            RegistryUnreachable: no useful answer came, however often.
            Forbidden: it leads where registries may not be.
        """
        origin = url.origin
        for redirects in range(MAX_REDIRECTS + 1):
            own = {"authorization": authorization} if authorization is not None and url.origin == origin else {}
            async with self._patiently(method, url, {**headers, **own}) as answer:
                location = answer.headers.get("location")
                if answer.status not in REDIRECTS or location is None:
                    yield answer
                    return
            if redirects == MAX_REDIRECTS:
                break
            following = Url.of(urljoin(str(url), location))
            if following.scheme == "http" and url.scheme == "https":
                raise refused(f"{url.host} leads away from HTTPS, to {following.host}")
            url = following
            self._check_plain(url)
        raise refused(f"{url.host} leads on and on")

    def _check_plain(self, url: Url) -> None:
        if url.scheme == "http" and not self.registries.is_plain(url.host, url.port):
            raise refused(f"the registry leads to {url.host}, which may not be spoken to without TLS")

    @contextlib.asynccontextmanager
    async def _patiently(self, method: str, url: Url, headers: Mapping[str, str]) -> AsyncIterator[Answer]:
        """Ask until there is an answer that another attempt would not better."""
        for attempt in range(1, ATTEMPTS + 1):
            wait_s = backoff_s(attempt)
            async with contextlib.AsyncExitStack() as stack:
                try:
                    response = await stack.enter_async_context(self._send(method, url, headers))
                except BROKEN as error:
                    if attempt == ATTEMPTS or is_hopeless(error):
                        raise unreachable(url, error) from error
                else:
                    answer = Answer(status=response.status, headers=_headers(response), url=url, response=response)
                    if answer.status not in PATIENT_STATUSES:
                        yield answer
                        return
                    if attempt == ATTEMPTS:
                        raise unreachable(url, f"it answers {answer.status}")
                    wait_s = max(wait_s, asked_wait_s(answer.headers.get("retry-after")))
            await asyncio.sleep(wait_s)

    @contextlib.asynccontextmanager
    async def _send(self, method: str, url: Url, headers: Mapping[str, str]) -> AsyncIterator[httpcore.Response]:
        timeouts = {"connect": CONNECT_S, "read": READ_S, "write": READ_S, "pool": READ_S * 5}
        default = HTTPS_PORT if url.scheme == "https" else 80
        host = f"[{url.host}]" if ":" in url.host else url.host
        all_headers = {"host": host if url.port == default else f"{host}:{url.port}", **headers}
        all_headers["user-agent"] = f"hearth/{VERSION}"
        # A blob is compressed already, and its checksum is of it as it is.
        all_headers["accept-encoding"] = "identity"
        target = httpcore.URL(
            scheme=url.scheme.encode(),
            host=url.host.encode("idna"),
            port=url.port,
            target=url.target.encode("ascii", "replace"),
        )
        async with self._pool.stream(
            method, target, headers=list(all_headers.items()), extensions={"timeout": timeouts}
        ) as response:
            yield response


def backoff_s(attempt: int) -> float:
    """Tell how long to wait after the attempt of this number, from 1: longer each time, never the same."""
    return float(BACKOFF_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))  # noqa: S311 -- no secret hangs on it


def asked_wait_s(header: str | None) -> float:
    """Read ``Retry-After``: seconds or a date (RFC 9110, 10.2.3); at most what we have patience for."""
    if header is None:
        return 0.0
    if header.strip().isascii() and header.strip().isdigit():
        return min(float(header), MAX_WAIT_S)
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((moment - datetime.now(UTC)).total_seconds(), 0.0), MAX_WAIT_S)


def is_hopeless(error: Exception) -> bool:
    """Tell whether another attempt would end the same: a certificate that is not trusted stays so."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def unreachable(url: Url, why: Exception | str) -> RegistryUnreachable:
    """Say that a registry cannot be reached."""
    said = why if isinstance(why, str) else f"{type(why).__name__}: {why}"
    return RegistryUnreachable(
        "the registry cannot be reached",
        details=f"{url.host} port {url.port}: {said}",
        resolution="check its name and try again; layers that are here already are kept",
    )


def _headers(response: httpcore.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
