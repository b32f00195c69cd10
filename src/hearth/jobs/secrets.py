"""What a machine is given of its owner's secrets, at every bring-up anew; the values are nowhere else on the host."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hearth.model import Sandbox
from hearth.tenancy import SecretUse
from hearth.wire.messages import FileContent

DIRECTORY = "/run/secrets"
"""On a tmpfs in the guest: what is there never reaches its disk."""
MODE = "0400"
USER = "1000"
"""Who runs a sandbox's commands unless somebody says otherwise."""


@dataclass(frozen=True, kw_only=True)
class Injected:
    """Variables, and files by their names under DIRECTORY."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def contents(self) -> dict[str, FileContent]:
        """Give the files as the agent takes them."""
        return {
            f"{DIRECTORY}/{name}": FileContent(content=base64.b64encode(value).decode(), mode=MODE, user=USER)
            for name, value in self.files.items()
        }


NOTHING_INJECTED = Injected()


def merged(first: Sequence[SecretUse], second: Sequence[SecretUse]) -> tuple[SecretUse, ...]:
    """Join uses; of two that are for the same place the ``second`` counts."""
    places = {use.env or f"file {use.name}": use for use in (*first, *second)}
    return tuple(places.values())


class SecretSource(Protocol):
    """Who can open secrets."""

    async def injected(self, sandbox: Sandbox) -> Injected:
        """Give what a sandbox is to have. Raises HostUnfit when it cannot be opened."""
        ...
