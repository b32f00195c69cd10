"""``Client`` and ``Sandbox``: the blocking shell over ``calls``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

from hearth.api.limits import MAX_LIST_LIMIT
from hearth.api.schemas import Health, ImageView, SandboxView
from hearth.sdk import calls
from hearth.sdk.calls import Call, CreateOptions, ExecOptions, read_problem
from hearth.sdk.endpoint import find_endpoint
from hearth.sdk.results import ExecReader, Output, Result, result_of
from hearth.sdk.transport import Incoming, Transport

Value = TypeVar("Value")


class Client:
    """A daemon. Without arguments it is found by HEARTH_URL and HEARTH_TOKEN, else in the data directory."""

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        self._transport = Transport(find_endpoint(url, token))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept."""
        self._transport.close()

    def call(self, call: Call[Value]) -> Value:
        """Carry out one operation."""
        return call.read(self._transport.fetch(call.request))

    def create(self, **options: Unpack[CreateOptions]) -> Sandbox:
        """Create a sandbox and wait until it runs; an existing one of this name is given as it is."""
        return Sandbox(self, self.call(calls.create(options)))

    def get(self, ref: str) -> Sandbox:
        """Give the sandbox with this id or name."""
        return Sandbox(self, self.call(calls.get(ref)))

    def list(self, labels: Mapping[str, str] | None = None) -> list[Sandbox]:
        """Give all sandboxes that carry all of ``labels``."""
        found: list[Sandbox] = []
        cursor: str | None = None
        while True:
            page = self.call(calls.list_page(labels=labels or {}, cursor=cursor, limit=MAX_LIST_LIMIT))
            found += [Sandbox(self, view) for view in page.items]
            cursor = page.next_cursor
            if cursor is None:
                return found

    def destroy(self, ref: str) -> None:
        """Destroy the sandbox with this id or name."""
        self.call(calls.destroy(ref))

    def run(self, ref: str, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> Result:
        """Run a command to its end in the sandbox with this id or name; any exit code is a result."""
        return result_of(self.call(calls.run(ref, cmd, options)))

    @contextlib.contextmanager
    def start(self, ref: str, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> Iterator[Running]:
        """Start a command and read its output as it comes; leaving the context early kills it."""
        with self._transport.open(calls.start(ref, cmd, options)) as incoming:
            if incoming.reader.status != 200:
                raise read_problem(incoming.whole())
            yield Running(incoming)

    def images(self) -> Sequence[ImageView]:
        """Give the images of the host."""
        return self.call(calls.images()).items

    def health(self) -> Health:
        """Ask the daemon how it is."""
        return self.call(calls.health())


class Running:
    """A command under way: iterate for its output, then ask for its exit code."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._reader = ExecReader()

    def __iter__(self) -> Iterator[Output]:
        for data in self._incoming:
            yield from self._reader.feed(data)
        self._reader.finish()

    @property
    def exit_code(self) -> int:
        """0-255, or 128+n when signal n ended it; known once the output has been read to its end."""
        return self._reader.finish()


class Sandbox:
    """A computer of its own.

    As a context manager it is destroyed at the end: ``with Sandbox.create() as sandbox: sandbox.run(["uname", "-a"])``.
    """

    def __init__(self, client: Client, view: SandboxView) -> None:
        self.client = client
        self.view = view

    @classmethod
    def create(cls, client: Client | None = None, **options: Unpack[CreateOptions]) -> Sandbox:
        """Create a sandbox and wait until it runs."""
        return (client or Client()).create(**options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.destroy()

    @property
    def id(self) -> str:
        return self.view.id

    @property
    def name(self) -> str:
        return self.view.name

    def run(self, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> Result:
        """Run a command to its end; any exit code is a result, ``.check()`` makes it an error."""
        return self.client.run(self.id, cmd, **options)

    def start(self, cmd: Sequence[str], **options: Unpack[ExecOptions]) -> contextlib.AbstractContextManager[Running]:
        """Start a command: ``with sandbox.start(["make"]) as running: for output in running: ...``."""
        return self.client.start(self.id, cmd, **options)

    def destroy(self) -> None:
        """Destroy the sandbox and all it holds."""
        self.client.destroy(self.id)
