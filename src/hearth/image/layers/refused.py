"""Why an image, a layer or an archive is not taken."""

from __future__ import annotations

from hearth.errors import Code, HearthError


class ImageRefused(HearthError):
    """What was given is no image, a damaged one, or one beyond the limits; ``details`` say what of it."""

    code = Code.INVALID


def refused(details: str, *, resolution: str = "make the image again, or take another one") -> ImageRefused:
    """Give the error for an image that cannot be taken as it is."""
    return ImageRefused("the image cannot be used", details=details, resolution=resolution, field="image")


def shown(name: bytes) -> str:
    """Give a name out of an archive as it may stand in a message: escaped, and not too long."""
    return repr(name[:120])[1:]
