"""The ``Range`` header (RFC 9110, section 14): which bytes of a file are asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hearth.errors import RangeNotSatisfiable

_ONE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ByteRange:
    """Bytes ``start`` to ``end``, the last one included; None is to the end. Without ``start`` the last ``end``."""

    start: int | None
    end: int | None

    def within(self, size: int) -> tuple[int, int]:
        """Give the first byte and how many, of a file of ``size`` bytes.

        Raises:
            RangeNotSatisfiable: there is not one of them.
        """
        if self.start is None:
            count = min(self.end or 0, size)
            start = size - count
        else:
            start = self.start
            count = min(size, size if self.end is None else self.end + 1) - start
        if count <= 0:
            error = RangeNotSatisfiable(
                "the file is shorter than that",
                details=f"it has {size} bytes",
                resolution="ask for bytes that are there",
                field="Range",
            )
            error.size = size
            raise error
        return start, count


def read_range(header: str | None) -> ByteRange | None:
    """Read a Range header; None where there is none to follow: of another unit, of several parts, or malformed."""
    match = _ONE.fullmatch(header or "")
    if match is None or match[1] == match[2] == "":
        return None
    start, end = (int(text) if text else None for text in match.groups())
    if start is not None and end is not None and end < start:
        return None
    return ByteRange(start=start, end=end)
