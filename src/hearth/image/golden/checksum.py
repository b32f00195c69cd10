"""Checksums of images as they are written down: bare hexadecimal digits, or what sha256sum prints. Nothing else."""

from __future__ import annotations

import re

from hearth.image.golden.base import CHECKSUM_SUFFIX, ImageRefused

FIELD = "checksum"
HEX = re.compile(r"[0-9a-fA-F]{64}")
LINE = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")
"""sha256sum(1): two blanks, or a blank and an asterisk. One with a leading backslash has an escaped name: refused."""


def check_checksum(value: str) -> str:
    """Return a checksum given in a request, with or without ``sha256:`` before it, in lower case.

    Raises:
        ImageRefused: it is none; the error names ``checksum``.
    """
    digits = value.strip().removeprefix("sha256:")
    if HEX.fullmatch(digits) is None:
        raise ImageRefused(
            "invalid checksum",
            details=f"{value[:80]!r} is not the 64 hexadecimal digits of a SHA-256",
            resolution="give what sha256sum prints",
            field=FIELD,
        )
    return digits.lower()


def parse_checksum_file(data: bytes, name: str) -> str:
    """Give the checksum of ``name``, the object's last part, in lower case.

    Raises:
        ImageRefused: the file has another form, or tells of other files alone.
    """
    try:
        lines = [line.rstrip("\r") for line in data.decode("utf-8").split("\n")]
    except UnicodeDecodeError as error:
        raise _malformed(name, "it is not text") from error
    lines = lines[:-1] if lines[-1] == "" else lines
    if len(lines) == 1 and HEX.fullmatch(lines[0].strip(" \t")):
        return lines[0].strip(" \t").lower()
    found = set()
    for number, line in enumerate(lines, 1):
        match = LINE.fullmatch(line)
        if match is None:
            raise _malformed(name, f"line {number} is neither 64 hexadecimal digits nor those and a name")
        if match[2].rpartition("/")[2] == name:
            found.add(match[1].lower())
    if len(found) != 1:
        raise _malformed(name, f"it tells {'nothing' if not found else 'two things'} of {name[:100]!r}")
    return found.pop()


def _malformed(name: str, what: str) -> ImageRefused:
    return ImageRefused(
        "the checksum file cannot be used",
        details=f"{name[:100]}{CHECKSUM_SUFFIX}: {what}",
        resolution="write it with sha256sum, or remove it",
        field=FIELD,
    )
