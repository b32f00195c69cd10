"""Several pipes, or none: running out of descriptors half-way leaves nothing open."""

from __future__ import annotations

import os


def open_pipes(count: int) -> list[int]:
    """Give the ends of ``count`` pipes, each read end first.

    Raises:
        OSError: there are no descriptors left.
    """
    opened: list[int] = []
    try:
        for _ in range(count):
            opened += os.pipe()
    except OSError:
        close_all(opened)
        raise
    return opened


def close_all(descriptors: list[int]) -> None:
    """Close descriptors that are open."""
    for descriptor in descriptors:
        os.close(descriptor)
