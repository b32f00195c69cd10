"""Readable names for sandboxes whose owner did not care to name them."""

from __future__ import annotations

import secrets

FIRST = (
    "amber", "ashen", "bright", "calm", "clear", "cosy", "dusky", "even", "fair", "fond", "gentle", "glad", "golden",
    "hazy", "keen", "kind", "light", "lively", "mellow", "mild", "neat", "noble", "quick", "quiet", "rosy", "russet",
    "sound", "steady", "sunny", "tidy", "warm", "wise",
)  # fmt: skip
SECOND = (
    "alder", "ash", "beech", "birch", "bramble", "brick", "candle", "cedar", "cherry", "cinder", "clay", "copper",
    "elm", "ember", "fern", "flame", "flint", "hazel", "heather", "iron", "kettle", "lantern", "larch", "maple", "oak",
    "pine", "rowan", "slate", "spark", "tinder", "walnut", "willow",
)  # fmt: skip


def name_from(seed: str) -> str:
    """Give the name that belongs to a seed of 32 hexadecimal digits or more: 74 bits, so nothing else has it."""
    number = int(seed[:8], 16)
    first, second = FIRST[number % len(FIRST)], SECOND[number // len(FIRST) % len(SECOND)]
    return f"{first}-{second}-{seed[8:24]}"


def random_name() -> str:
    """Give a name such as ``warm-ember-3f9a``: 26 bits, so a caller still has to look whether it is taken."""
    return f"{secrets.choice(FIRST)}-{secrets.choice(SECOND)}-{secrets.token_hex(2)}"
