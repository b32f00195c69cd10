"""Tells when the host's addresses change: rules that keep sandboxes from them have to follow."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import structlog

from hearth.errors import HearthError
from hearth.host import namespaces
from hearth.network.uplink import Uplink

log = structlog.get_logger(__name__)

RTMGRP_IPV4_IFADDR = 0x10
"""linux/rtnetlink.h"""
SETTLE_S = 0.2
"""Addresses come and go in groups."""


async def watch_addresses(uplink: Uplink, changed: Callable[[], Awaitable[None]]) -> None:
    """Call ``changed`` after each change of the host's IPv4 addresses, until cancelled."""
    loop = asyncio.get_running_loop()
    news = asyncio.Event()
    with await _listen(uplink.namespace) as heard:
        loop.add_reader(heard, _drain, heard, news)
        try:
            while True:
                await news.wait()
                await asyncio.sleep(SETTLE_S)
                news.clear()
                try:
                    await changed()
                except (HearthError, OSError) as error:
                    log.error("the host's new addresses are not known to the networks", error=str(error))
        finally:
            loop.remove_reader(heard)


def _drain(heard: socket.socket, news: asyncio.Event) -> None:
    """What the messages say is read anew anyway; an overrun of the buffer (ENOBUFS) is news as well."""
    news.set()
    with contextlib.suppress(OSError):
        while heard.recv(65535):
            pass


async def _listen(namespace: str | None) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        made.setblocking(False)
        made.bind((0, RTMGRP_IPV4_IFADDR))
        return made

    if namespace is None:
        return make()
    return await namespaces.enter(namespace, make, discard=socket.socket.close)
