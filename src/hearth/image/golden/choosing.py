"""From an image URL to the source that may serve it."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit

from hearth.errors import InvalidInput
from hearth.image.golden.base import URL_FIELD, Source, SourceRefused
from hearth.image.golden.http import PORTS, HttpSource, redact
from hearth.image.golden.local import LocalSource
from hearth.image.golden.s3 import S3Source
from hearth.image.golden.settings import GoldenSettings, S3Settings

URL_MAX_CHARACTERS = 2048
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_source(settings: GoldenSettings, url: str) -> Source:
    """Give the source for ``s3://bucket/key``, ``http(s)://…`` or ``file:///…``; nothing is asked yet.

    A URL of the configured endpoint is read with its credentials, any other without; see ``SourcePolicy``.

    Raises:
        InvalidInput: it is no such URL; the error names ``image_url``.
        SourceRefused: the operator does not allow it.
    """
    if not url or len(url) > URL_MAX_CHARACTERS or not url.isprintable() or any(letter.isspace() for letter in url):
        raise _invalid(url, "is empty, too long or has characters that no URL has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _invalid(url, str(error)) from error
    stall_timeout_s = settings.cache.download.stall_timeout_s
    if parts.scheme == "s3":
        if settings.s3 is None:
            raise _invalid(url, "names an object storage, and none is configured")
        bucket, key = parts.netloc, _key(url, parts.path, parts)
        return S3Source(settings.s3, _allowed(settings.s3, bucket), key, stall_timeout_s=stall_timeout_s)
    if parts.scheme in PORTS:
        if settings.s3 is not None and _is_endpoint(settings.s3, parts, port) and not parts.query:
            bucket, _, path = parts.path.lstrip("/").partition("/")
            key = _key(url, path, parts)
            return S3Source(settings.s3, _allowed(settings.s3, bucket), key, stall_timeout_s=stall_timeout_s)
        return HttpSource(settings.policy, url, stall_timeout_s=stall_timeout_s)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return LocalSource(settings.policy.directories, _path(url, parts))
    raise _invalid(url, "is not an s3, http, https or file URL")


def object_name(url: str) -> str:
    """Give the last part of a URL's path, which a checksum file calls the object by."""
    return unquote(urlsplit(url).path).rpartition("/")[2]


def _is_endpoint(s3: S3Settings, parts: SplitResult, port: int | None) -> bool:
    endpoint = urlsplit(s3.endpoint)
    ours = (endpoint.scheme, endpoint.hostname, endpoint.port or PORTS.get(endpoint.scheme))
    return ours == (parts.scheme, parts.hostname, port or PORTS[parts.scheme]) and parts.username is None


def _allowed(s3: S3Settings, bucket: str) -> str:
    if BUCKET.fullmatch(bucket) is None:
        raise _invalid(bucket, "is no bucket's name")
    if s3.buckets and bucket not in s3.buckets:
        raise SourceRefused(
            "images are not read from that bucket",
            details=f"{bucket[:80]!r} is not among those the operator lists",
            resolution=f"buckets: {', '.join(s3.buckets)}",
            field=URL_FIELD,
        )
    return bucket


def _key(url: str, path: str, parts: SplitResult) -> str:
    key = unquote(path.lstrip("/"))
    if not key or key.endswith("/") or parts.query or parts.fragment or parts.username is not None:
        raise _invalid(url, "names no object, or more than one")
    if any(part in ("", ".", "..") for part in key.split("/")) or not key.isprintable():
        raise _invalid(url, "has empty parts, '.' or '..' in its path")
    return key


def _path(url: str, parts: SplitResult) -> str:
    path = unquote(parts.path)
    if parts.query or parts.fragment or not path.isprintable():
        raise _invalid(url, "names no file: '?' is written %3F there, '#' %23, and control characters are in no name")
    return path


def _invalid(url: str, what: str) -> InvalidInput:
    return InvalidInput(
        "invalid image_url",
        details=f"{redact(url)[:200]!r} {what}" if "//" in url else f"{url[:80]!r} {what}",
        resolution="give s3://bucket/object or a URL of a host that the operator lists",
        field=URL_FIELD,
    )
