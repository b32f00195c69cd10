"""Images in object storage, by obstore; see docs/decisions/s3-client.md."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError
from obstore.store import S3Store

from hearth.image.golden.base import (
    CHECKSUM_FILE_MAX_BYTES,
    CHECKSUM_SUFFIX,
    URL_FIELD,
    Head,
    SourceRefused,
    SourceUnreachable,
    changed,
    cut_off,
    is_strong,
    missing,
    overflowing,
    too_long_a_checksum_file,
)
from hearth.image.golden.part import chunk_size
from hearth.image.golden.settings import S3Settings

if TYPE_CHECKING:
    from obstore import GetOptions

PIECE_BYTES = 2 << 20
"""At a time from the library: what it holds back is lost when a connection is cut, so never more than a chunk."""
NOWHERE = "127.0.0.1:0"
"""The proxy for every host but the storage's: nobody can listen there. The library follows redirects, whatever one
says, and what an object storage answers must not lead to other hosts.
"""
CONNECT_TIMEOUT_S = 10
REQUEST_TIMEOUT_S = 24 * 3600
"""Of a whole body, so it bounds nothing but what was forgotten; a stream that stands still is given up by ours."""
IDLE_TIMEOUT_S = 1
"""Ranges follow one another at once; whoever pauses longer connects again."""
STORES_MAX = 16
STATUS = re.compile(r"status code: ([0-9]{3})")
NO_SUCH_RANGE = 416
RETRYABLE_CLIENT_ERRORS = frozenset({408, 425, 429})
DETAILS_MAX_CHARACTERS = 300


class S3Source:
    """Implements ``hearth.image.golden.base.Source``."""

    def __init__(self, settings: S3Settings, bucket: str, key: str, *, stall_timeout_s: float) -> None:
        self.url = f"s3://{bucket}/{key}"
        self.identity = f"{settings.endpoint} {self.url}"
        self._key = key
        self._stall_timeout_s = stall_timeout_s
        self._settings, self._bucket = settings, bucket

    @property
    def _store(self) -> S3Store:
        return _shared_store(self._settings, self._bucket)

    async def head(self) -> Head:
        with self._errors():
            async with asyncio.timeout(self._stall_timeout_s):
                found = await obstore.head_async(self._store, self._key)
        etag = found["e_tag"] or ""
        return Head(size_bytes=found["size"], validator=etag if is_strong(etag) else "", version=found["version"])

    async def checksum_file(self) -> bytes | None:
        """Read no more than may be there: a body that nobody reads would hold its connection."""
        with self._errors():
            try:
                async with asyncio.timeout(self._stall_timeout_s):
                    start: GetOptions = {"range": (0, CHECKSUM_FILE_MAX_BYTES + 1)}
                    found = await obstore.get_async(self._store, self._key + CHECKSUM_SUFFIX, options=start)
                    data = bytes(await found.bytes_async())
            except FileNotFoundError:
                return None
            except BaseError as error:
                if _status(error) == NO_SUCH_RANGE:  # it is empty
                    return b""
                raise
        if len(data) > CHECKSUM_FILE_MAX_BYTES:
            raise too_long_a_checksum_file(self.url)
        return data

    async def read(self, head: Head, start: int, end: int) -> AsyncGenerator[memoryview, None]:
        received = 0
        with self._errors():
            options: GetOptions = {"range": (start, end)}
            if head.validator:
                options["if_match"] = head.validator
            if head.version is not None:
                options["version"] = head.version
            async with asyncio.timeout(self._stall_timeout_s):
                answer = await obstore.get_async(self._store, self._key, options=options)
            # Where nothing pins the request (no ETag), its answer at least has to be of the same object.
            if answer.meta["size"] != head.size_bytes:
                raise changed(self.url)
            piece_bytes = min(PIECE_BYTES, chunk_size(head.size_bytes))
            stream = aiter(answer.stream(min_chunk_size=piece_bytes))
            while True:
                async with asyncio.timeout(self._stall_timeout_s):
                    piece = await anext(stream, None)
                if piece is None:
                    break
                received += len(piece)
                if received > end - start:
                    raise overflowing(self.url, start, end)
                yield memoryview(piece)
        if received != end - start:
            raise cut_off(self.url, start, end, received)

    async def close(self) -> None:
        """Leave the client to others; its connections end by themselves."""

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise missing(self.url) from error
        except PreconditionError as error:
            raise changed(self.url) from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise _refused(self.url, error) from error
        except TimeoutError as error:
            raise SourceUnreachable(
                "the object storage does not answer",
                details=f"{self.url}: nothing came within {self._stall_timeout_s:g} s",
                field=URL_FIELD,
            ) from error
        except BaseError as error:
            if NOWHERE in str(error):
                raise SourceRefused(
                    "the object storage refuses the image",
                    details=f"{self.url}: it was redirected to another host",
                    resolution="let s3_endpoint be the host that serves the objects",
                    field=URL_FIELD,
                ) from error
            number = _status(error)
            if number is not None and 300 <= number < 500 and number not in RETRYABLE_CLIENT_ERRORS:
                raise _refused(self.url, error) from error
            raise SourceUnreachable(
                "the object storage failed", details=f"{self.url}: {_brief(error)}", field=URL_FIELD
            ) from error


@functools.lru_cache(maxsize=STORES_MAX)
def _shared_store(settings: S3Settings, bucket: str) -> S3Store:
    """Give the one client for a bucket: making one takes 5 ms, and its connections serve whoever comes next."""
    return S3Store(
        bucket,
        endpoint=settings.endpoint,
        access_key_id=settings.access_key,
        secret_access_key=settings.secret_key,
        region=settings.region,
        virtual_hosted_style_request=False,
        client_options={
            "allow_http": settings.endpoint.startswith("http://"),
            "timeout": timedelta(seconds=REQUEST_TIMEOUT_S),
            "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
            "pool_idle_timeout": timedelta(seconds=IDLE_TIMEOUT_S),
            "proxy_url": f"http://{NOWHERE}",
            "proxy_excludes": urlsplit(settings.endpoint).hostname or "",
        },
        retry_config={"max_retries": 0},
    )


def _refused(url: str, error: Exception) -> SourceRefused:
    return SourceRefused(
        "the object storage refuses the image",
        details=f"{url}: {_brief(error)}",
        resolution="check the access key and what it may read",
        field=URL_FIELD,
    )


def _status(error: Exception) -> int | None:
    found = STATUS.search(str(error))
    return int(found[1]) if found else None


def _brief(error: Exception) -> str:
    """Give the first line: below it the library repeats the request as it was made."""
    return str(error).partition("\n")[0][:DETAILS_MAX_CHARACTERS]
