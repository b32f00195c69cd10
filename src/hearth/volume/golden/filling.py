"""Filling a volume by whatever way its storage takes bytes."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from hearth.volume.golden.base import GoldenBackend, GoldenImage, OnBytes, Target
from hearth.volume.golden.populate import populate


@runtime_checkable
class FillsItself(Protocol):
    """A storage whose volumes are not always to be written to by their path."""

    async def fill(self, image: GoldenImage, target: Target, on_bytes: OnBytes) -> None:
        """Write an image to a target, as ``populate`` does."""
        ...


async def fill(backend: GoldenBackend, image: GoldenImage, target: Target, on_bytes: OnBytes) -> None:
    """Write an image to a target that its storage made. Raises as ``populate``."""
    if isinstance(backend, FillsItself):
        await backend.fill(image, target, on_bytes)
    else:
        await populate(image, target, on_bytes)
