"""What `serve` is told, read and checked as one value, before anything is opened."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass

from hearth.config import DataDirectory, Settings, load_data_directory
from hearth.server import observability, secure
from hearth.server.listen import parse_address
from hearth.server.observability import ObservabilityOptions
from hearth.server.proxy.options import PublicOptions, read_options
from hearth.settings.loading import settings_of
from hearth.store.redis_address import RedisAddress
from hearth.store.redis_address import read_address as read_redis_address


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """All of it; ``addresses`` are the API's, ``drain_s`` how long requests may take at the end."""

    data: DataDirectory
    settings: Settings
    addresses: list[tuple[str, int]]
    public: PublicOptions
    encrypted: secure.SecureOptions
    observing: ObservabilityOptions
    drain_s: float
    redis: RedisAddress | None


def read_all(arguments: argparse.Namespace, environment: Mapping[str, str]) -> ServeOptions:
    """Read what was put together by ``hearth.settings``.

    Raises:
        InvalidInput: something makes no sense, alone or with the rest; ``field`` names it.
    """
    data = DataDirectory(root=arguments.data) if arguments.data else load_data_directory()
    data.check()
    encrypted = secure.read_options(arguments)
    remote = arguments.allow_remote or encrypted.is_on
    settings = settings_of(arguments)
    redis_url = settings.provisioning.redis_url
    return ServeOptions(
        data=data,
        settings=settings,
        addresses=[parse_address(text, allow_remote=remote) for text in arguments.listen],
        public=read_options(arguments),
        encrypted=encrypted,
        observing=observability.read_options(arguments, environment),
        drain_s=arguments.drain,
        redis=read_redis_address(redis_url) if redis_url else None,
    )
