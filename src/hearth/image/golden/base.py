"""What every place that golden images come from offers, and what can go wrong with it.

SourceRefused       this address, host or directory is not to be asked, or it refused us; nothing to try again
SourceMissing       there is no such object
SourceChanged       the object is another one than a moment ago
SourceUnreachable   the network, or a server that is busy or broken: worth trying again
ImageRefused        what came is not what was promised, or nothing to be used
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from hearth.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable

URL_FIELD = "image_url"
CHECKSUM_SUFFIX = ".sha256"
CHECKSUM_FILE_MAX_BYTES = 65_536


class SourceRefused(Forbidden):
    """Asking there is not allowed, here or there."""

    next_step = "see that the image can be read there without a key, or put it into the object storage"


class SourceMissing(NotFound):
    """There is no such object."""


class SourceChanged(Conflict):
    """The object was replaced while it was read."""


class SourceUnreachable(Unavailable):
    """Nobody answered, or the answer was cut off, or the server has troubles of its own.

    ``retry_after_s`` is what the server asked for, if it did.
    """

    retry_after_s: float | None = None


class ImageRefused(InvalidInput):
    """The bytes are not the image that was asked for, or no image that may be used."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """What is known of an object before its bytes: enough to tell whether it is still the same.

    Args:
        size_bytes: of the object.
        validator: its strong ETag, or what is as good; empty where the server tells nothing that changes with every
            byte. Parts of such an object are never put together.
        version: of the object, where the storage keeps several.
        has_ranges: whether parts of it may be asked for.
    """

    size_bytes: int
    validator: str
    version: str | None = None
    has_ranges: bool = True


class Source(Protocol):
    """One object somewhere."""

    @property
    def url(self) -> str:
        """What it was asked for by, as it may be shown; holds no secret."""
        ...

    @property
    def identity(self) -> str:
        """What tells it from every other object anywhere: an ETag is of one object alone. Not to be shown."""
        ...

    async def head(self) -> Head:
        """Ask for size and identity.

        Raises:
            SourceRefused, SourceMissing, SourceUnreachable: as their names say.
        """
        ...

    async def checksum_file(self) -> bytes | None:
        """Give the bytes of the object's checksum file, None when there is none.

        Raises:
            SourceRefused, SourceUnreachable: as their names say.
            ImageRefused: it is longer than ``CHECKSUM_FILE_MAX_BYTES``.
        """
        ...

    def read(self, head: Head, start: int, end: int) -> AsyncGenerator[memoryview, None]:
        """Give the bytes from ``start`` up to ``end`` of exactly the object that ``head`` tells of, in pieces.

        Whoever wants no more of them closes the generator, and with it what they came by.

        Raises:
            SourceChanged: it is another one by now.
            SourceRefused, SourceMissing, SourceUnreachable: as their names say; also when fewer bytes came.
        """
        ...

    async def close(self) -> None:
        """Give its connections back."""
        ...


def is_strong(etag: str) -> bool:
    """Tell whether an ETag promises equal bytes (RFC 9110, section 8.8.1)."""
    return etag.startswith('"')


def too_long_a_checksum_file(url: str) -> ImageRefused:
    """Give the error for a checksum file that is none."""
    return ImageRefused(
        "the checksum file is too long",
        details=f"{url}{CHECKSUM_SUFFIX} has more than {CHECKSUM_FILE_MAX_BYTES} bytes",
        resolution="it is to hold the output of sha256sum",
        field=URL_FIELD,
    )


def changed(url: str) -> SourceChanged:
    """Give the error for an object that was replaced."""
    return SourceChanged(
        "the image changed while it was read",
        details=f"{url} is not the object it was at the beginning",
        resolution="try again once it is not being written any more",
        field=URL_FIELD,
    )


def missing(url: str) -> SourceMissing:
    """Give the error for an object that is not there."""
    return SourceMissing(
        "no such image", details=f"there is nothing at {url}", resolution="check the URL", field=URL_FIELD
    )


def overflowing(url: str, start: int, end: int) -> SourceRefused:
    """Give the error for an answer that was longer than what was asked for."""
    return SourceRefused(
        "the image cannot be fetched",
        details=f"{url}: more came than the {end - start} bytes from {start} on",
        resolution="check its server with 'curl -v -r 0-0'",
        field=URL_FIELD,
    )


def cut_off(url: str, start: int, end: int, received: int) -> SourceUnreachable:
    """Give the error for an answer that was shorter than promised."""
    return SourceUnreachable(
        "the image's source stopped in the middle",
        details=f"{url}: {received} of {end - start} bytes from {start} on came",
        field=URL_FIELD,
    )
