"""Images from plain HTTP(S) servers that the operator listed: every hop checked, every address checked before it is
connected to and then used as it was checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from ipaddress import ip_address
from urllib.parse import urljoin, urlsplit

import httpcore

from hearth.image.golden.addresses import check_address, check_host
from hearth.image.golden.base import (
    CHECKSUM_FILE_MAX_BYTES,
    CHECKSUM_SUFFIX,
    URL_FIELD,
    Head,
    SourceMissing,
    SourceRefused,
    SourceUnreachable,
    changed,
    cut_off,
    is_strong,
    missing,
    overflowing,
    too_long_a_checksum_file,
)
from hearth.image.golden.settings import SourcePolicy

REDIRECTS_MAX = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
CONNECT_TIMEOUT_S = 10.0
CONNECTIONS_MAX = 32
RETRY_AFTER_MAX_S = 60.0
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
PORTS = {"http": 80, "https": 443}
CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses alone: a name is resolved once, and what was checked is what is connected to."""

    def __init__(self, policy: SourcePolicy) -> None:
        self._policy = policy
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Resolve, check, connect to the first address that answers."""
        try:
            async with asyncio.timeout(timeout):
                found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:  # one bad answer among good ones is a trick, not a mistake
            check_address(self._policy, ip_address(address.partition("%")[0]))
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def sleep(self, seconds: float) -> None:
        """Wait, for the library's own pauses."""
        await self._inner.sleep(seconds)


class HttpSource:
    """Implements ``hearth.image.golden.base.Source``. Never sends credentials."""

    def __init__(self, policy: SourcePolicy, url: str, *, stall_timeout_s: float) -> None:
        self._policy = policy
        self._location = url
        self._timeouts = {
            "connect": CONNECT_TIMEOUT_S,
            "read": stall_timeout_s,
            "write": stall_timeout_s,
            "pool": stall_timeout_s,
        }
        self.url, self.identity = redact(url), url
        self._check(url)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(),
            max_connections=CONNECTIONS_MAX,
            network_backend=CheckedBackend(policy),
        )

    async def head(self) -> Head:
        """Ask for the first byte rather than by HEAD, which signed URLs and some servers refuse."""
        async with self._get(self._location, {"range": "bytes=0-0"}, follow=True) as (response, location):
            self._location = location
            headers = _headers(response)
            if response.status == 206:
                found = CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
                if found is None:
                    raise self._broken("a part of it came without saying which")
                size_bytes = int(found[3])
            elif headers.get("content-length", "").isdigit():
                size_bytes = int(headers["content-length"])
            else:
                raise self._broken("it has no length", "let its server say Content-Length, or put it where one does")
            return Head(size_bytes=size_bytes, validator=_validator(headers), has_ranges=response.status == 206)

    async def checksum_file(self) -> bytes | None:
        parts = urlsplit(self._location)
        beside = parts._replace(path=parts.path + CHECKSUM_SUFFIX).geturl()
        try:
            async with self._get(beside, {}, follow=True) as (response, _):
                data = bytearray()
                async for piece in response.aiter_stream():
                    data += piece
                    if len(data) > CHECKSUM_FILE_MAX_BYTES:
                        raise too_long_a_checksum_file(self.url)
                return bytes(data)
        except SourceMissing:
            return None

    async def read(self, head: Head, start: int, end: int) -> AsyncGenerator[memoryview, None]:
        wanted: dict[str, str] = {}
        if head.has_ranges:
            wanted["range"] = f"bytes={start}-{end - 1}"
            if head.validator:
                wanted["if-match"] = head.validator
        elif (start, end) != (0, head.size_bytes):
            raise AssertionError("a server without ranges is read from beginning to end")
        received = 0
        async with self._get(self._location, wanted, follow=False) as (response, _):
            self._require_same(head, response, start, end)
            async for piece in response.aiter_stream():
                received += len(piece)
                if received > end - start:
                    raise overflowing(self.url, start, end)
                yield memoryview(piece)
        if received != end - start:
            raise cut_off(self.url, start, end, received)

    async def close(self) -> None:
        await self._pool.aclose()

    @contextlib.asynccontextmanager
    async def _get(
        self, url: str, headers: dict[str, str], *, follow: bool
    ) -> AsyncIterator[tuple[httpcore.Response, str]]:
        """Ask, follow redirects where allowed, and give an answer with a body (200 or 206) and its URL."""
        for _ in range(REDIRECTS_MAX + 1):
            self._check(url)
            sent = {"host": urlsplit(url).netloc, "accept": "*/*", "accept-encoding": "identity", **headers}
            with self._errors():
                async with self._pool.stream(
                    "GET", url, headers=list(sent.items()), extensions={"timeout": self._timeouts}
                ) as response:
                    if response.status in (200, 206):
                        if _headers(response).get("content-encoding", "identity") != "identity":
                            raise self._broken("it came encoded, although that was not asked for")
                        yield response, url
                        return
                    if response.status not in REDIRECTS or not follow:
                        raise self._failure(response)
                    url = self._redirected(url, _headers(response).get("location", ""))
        raise self._broken(f"it was redirected more than {REDIRECTS_MAX} times")

    def _redirected(self, url: str, location: str) -> str:
        target = urljoin(url, location)
        if not location or (url.startswith("https:") and not target.startswith("https:")):
            raise self._broken("it was redirected to nowhere, or from https to http")
        return target

    def _check(self, url: str) -> None:
        """Let a URL pass that may be asked."""
        try:
            parts = urlsplit(url)
            port = parts.port or PORTS[parts.scheme]
        except (ValueError, KeyError) as error:
            raise self._broken("it is no HTTP URL") from error
        if not parts.hostname or parts.username is not None or not url.isascii() or not url.isprintable():
            raise self._broken("it has no host, a user in it, or characters that no URL has")
        check_host(self._policy, parts.hostname, port)

    def _require_same(self, head: Head, response: httpcore.Response, start: int, end: int) -> None:
        headers = _headers(response)
        if head.validator and _validator(headers) != head.validator:
            raise changed(self.url)
        if not head.has_ranges:
            if headers.get("content-length") != str(head.size_bytes):
                raise changed(self.url)
            return
        found = CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
        if response.status != 206 or found is None:
            raise self._broken("a part of it was asked for, and something else came")
        if int(found[3]) != head.size_bytes:
            raise changed(self.url)
        if (int(found[1]), int(found[2])) != (start, end - 1):
            raise self._broken("another part came than the one asked for")

    def _failure(self, response: httpcore.Response) -> Exception:
        status = response.status
        if status in (404, 410):
            return missing(self.url)
        if status in (412, 416):
            return changed(self.url)
        if status in BUSY:
            error = SourceUnreachable(
                "the image's server has troubles", details=f"{self.url}: HTTP {status}", field=URL_FIELD
            )
            after = _headers(response).get("retry-after", "")
            error.retry_after_s = min(float(after), RETRY_AFTER_MAX_S) if after.isdigit() else None
            return error
        return SourceRefused("the image's server refuses", details=f"{self.url}: HTTP {status}", field=URL_FIELD)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            # Certificates that do not fit arrive as ConnectError; trying again costs three tries and hides nothing.
            raise SourceUnreachable(
                "the image's server cannot be reached",
                details=f"{self.url}: {type(error).__name__}: {str(error)[:200]}",
                field=URL_FIELD,
            ) from error

    def _broken(
        self, what: str, resolution: str = "check the URL, and its server with 'curl -v -r 0-0'"
    ) -> SourceRefused:
        return SourceRefused(
            "the image cannot be fetched", details=f"{self.url}: {what}", resolution=resolution, field=URL_FIELD
        )


def redact(url: str) -> str:
    """Give a URL as it may be shown: without user and without query, where signatures are."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed URL"
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="…" if parts.query else "", fragment="").geturl()[:300]


def _headers(response: httpcore.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}


def _validator(headers: dict[str, str]) -> str:
    etag = headers.get("etag", "")
    return etag if is_strong(etag) else ""
