"""Objects that were fetched and are no good: not fetched again for a while, and their users are told why at once."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

import msgspec
import structlog

from hearth.host import files
from hearth.host.clock import Clock
from hearth.image.golden.base import URL_FIELD, ImageRefused, Source
from hearth.image.golden.resolving import Resolved
from hearth.image.golden.settings import CacheSettings
from hearth.metrics import instruments

log = structlog.get_logger(__name__)


class _Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A file: why one object is not wanted."""

    url: str
    why: str
    details: str
    refused_at: datetime
    field: str = URL_FIELD


class Refusals:
    """What was refused, a file each."""

    def __init__(self, root: Path, settings: CacheSettings, clock: Clock) -> None:
        self._root, self._settings, self._clock = root, settings, clock

    def add(self, source: Source, resolved: Resolved, image_type: str, error: ImageRefused) -> None:
        """Remember why an object is no image of that type, if it can be told from its successor."""
        instruments.IMAGE_REQUESTS.labels(outcome="refused").inc()
        log.warning("image refused", url=source.url, why=str(error))
        if resolved.head.validator:
            refusal = _Refusal(
                url=source.url,
                why=error.brief,
                details=error.details,
                refused_at=self._clock.now(),
                field=error.field or URL_FIELD,
            )
            files.write_atomic(self._root / _name(resolved, image_type), msgspec.json.encode(refusal))

    def require_none(self, resolved: Resolved, image_type: str) -> None:
        """Spare a second download of what was refused a moment ago. Raises ImageRefused."""
        try:
            refusal = msgspec.json.decode((self._root / _name(resolved, image_type)).read_bytes(), type=_Refusal)
        except (FileNotFoundError, msgspec.DecodeError):
            return
        age_s = (self._clock.now() - refusal.refused_at).total_seconds()
        if age_s < self._settings.refusal_s:
            raise ImageRefused(
                refusal.why,
                details=f"{refusal.details} (found {age_s:.0f} s ago)",
                resolution="put another object there, or order what it is",
                field=refusal.field,
            )


def _name(resolved: Resolved, image_type: str) -> str:
    """Name an object and what was expected of it: as something else it may be right."""
    return hashlib.sha256(f"{resolved.origin_key} {resolved.sha256} {image_type}".encode()).hexdigest()
