"""Ports of sandboxes for the blocking client: ``client.ports.publish("web", 3000)``; the twin of ``async_ports``."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from hearth.api.port_schemas import PortList, PortView, PublicationView
from hearth.errors import HearthError
from hearth.sdk import port_calls
from hearth.sdk.call import Call
from hearth.sdk.endpoint import Endpoint

if TYPE_CHECKING:
    from hearth.sdk.forwarding import Forwarder

Value = TypeVar("Value")
OnRefusal = Callable[[HearthError], None]
"""Called when a connection could not be carried on; its caller sees it closed."""


class Caller(Protocol):
    """What carries calls out."""

    def call(self, call: Call[Value]) -> Value: ...


class Ports:
    """What listens in sandboxes, what is published, and ways to it."""

    def __init__(self, client: Caller, endpoint: Endpoint) -> None:
        self._client = client
        self._endpoint = endpoint

    def of(self, ref: str) -> Sequence[PortView]:
        """Give the ports that something in a sandbox listens on; wakes it.

        >>> 3999 in [port.port for port in client.ports.of("web")]
        False
        """
        return self._client.call(port_calls.ports(ref)).items

    def every(self) -> PortList:
        """Give those of all sandboxes that run; wakes none, and names those that it did not ask.

        >>> 3999 in [port.port for port in client.ports.every().items]
        False
        """
        return self._client.call(port_calls.all_ports())

    def publish(self, ref: str, port: int, *, alias: str | None = None) -> PublicationView:
        """Give a port a public URL, which wakes the sandbox from any state.

        >>> client.ports.publish("web", 3000, alias="shop").port
        3000
        >>> client.ports.unpublish("web", 3000)
        """
        return self._client.call(port_calls.publish(ref, port, alias))

    def published(self, ref: str) -> Sequence[PublicationView]:
        """Give a sandbox's public URLs; wakes nothing.

        >>> made = client.ports.publish("web", 3001)
        >>> [each.port for each in client.ports.published("web")]
        [3001]
        >>> client.ports.unpublish("web", 3001)
        """
        return self._client.call(port_calls.publications(ref)).items

    def every_published(self) -> Sequence[PublicationView]:
        """Give all public URLs, everybody's for an administrator; wakes nothing.

        >>> made = client.ports.publish("web", 3002)
        >>> [each.port for each in client.ports.every_published()]
        [3002]
        >>> client.ports.unpublish("web", 3002)
        """
        page = self._client.call(port_calls.publications_page(None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = self._client.call(port_calls.publications_page(page.next_cursor))
            found += page.items
        return found

    def unpublish(self, ref: str, port: int) -> None:
        """Take a port's public URL away.

        >>> made = client.ports.publish("web", 3003)
        >>> client.ports.unpublish("web", 3003)
        """
        self._client.call(port_calls.unpublish(ref, port))

    @contextlib.contextmanager
    def forward(
        self,
        ref: str,
        remote: int,
        *,
        local: int = 0,
        host: str = "127.0.0.1",
        on_refusal: OnRefusal | None = None,
    ) -> Iterator[tuple[str, int]]:
        """Listen here for connections to a port of a sandbox, as long as the context lasts; gives where.

        Each connection wakes the sandbox if need be. ``local`` 0 lets the system choose a port.

        Raises:
            Unavailable: the address is taken or not ours.

        >>> with client.ports.forward("web", 3000) as (host, port):
        ...     host, port > 0
        ('127.0.0.1', True)
        """
        port_calls.check_port(remote)
        # asyncio takes 45 ms to import; only who forwards shall wait for it.
        module = import_module("hearth.sdk.forwarding")
        forwarder: Forwarder = module.Forwarder(self._endpoint, ref, remote, on_refusal=on_refusal)
        with _Loop(import_module("asyncio").Runner) as loop:
            address: tuple[str, int] = loop.wait(forwarder.start(host, local))
            try:
                yield address
            finally:
                loop.wait(forwarder.close())


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner()
        self._loop = self._runner.get_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hearth forward", daemon=True)

    def __enter__(self) -> _Loop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._runner.close()

    def wait(self, work: Any) -> Any:
        """Run a coroutine in the loop and give its result."""
        return import_module("asyncio").run_coroutine_threadsafe(work, self._loop).result()
