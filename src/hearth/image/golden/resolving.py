"""What a source has at this moment, and which checksum it has to have."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from hearth.host.clock import Clock
from hearth.image.golden.base import URL_FIELD, Head, ImageRefused, Source
from hearth.image.golden.checksum import check_checksum, parse_checksum_file
from hearth.image.golden.choosing import object_name
from hearth.image.golden.retry import retried
from hearth.image.golden.settings import CacheSettings


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """An object as it is now. ``sha256`` is what it has to have; empty when nobody says."""

    head: Head
    origin_key: str
    sha256: str


async def resolve(source: Source, checksum: str | None, settings: CacheSettings, clock: Clock) -> Resolved:
    """Ask for the object's size, identity and checksum; one in the request wins over the file beside it.

    Raises:
        ImageRefused: the checksum or its file is malformed, or the object is empty or too large.
        SourceRefused, SourceMissing, SourceUnreachable: as their names say.
    """
    wanted = "" if checksum is None else check_checksum(checksum)
    retry = settings.download.retry
    head = await retried(source.head, retry, clock)
    if not 0 < head.size_bytes <= settings.image_max_bytes:
        raise ImageRefused(
            "the image's size is out of bounds",
            details=f"{source.url} has {head.size_bytes} bytes; 1 to {settings.image_max_bytes} are possible",
            field=URL_FIELD,
        )
    if not wanted:
        file = await retried(source.checksum_file, retry, clock)
        wanted = "" if file is None else parse_checksum_file(file, object_name(source.url))
    text = "\0".join((source.identity, head.validator, head.version or "", str(head.size_bytes)))
    return Resolved(head=head, origin_key=hashlib.sha256(text.encode()).hexdigest(), sha256=wanted)
