"""What every part of ``AsyncClient`` builds on: calls carried out, lists read to their end, deaths told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from hearth.api.schemas import ExitCauseView
from hearth.errors import Conflict, GuestFailed, HearthError, NotFound, Unavailable
from hearth.sdk import calls, sleep_calls
from hearth.sdk.async_transport import AsyncTransport
from hearth.sdk.call import Call, Page
from hearth.sdk.died import NEWS_LOOKS, NEWS_POLL_S, SandboxDied, cause_in, may_be_news
from hearth.sdk.endpoint import find_endpoint
from hearth.sdk.http1 import HttpRequest, HttpResponse
from hearth.sdk.retries import PATIENCE_S, Retries

Value = TypeVar("Value")
Item = TypeVar("Item")


class AsyncCore:
    """A daemon's address and the connections to it.

    A call that may be repeated is, for ``patience_s`` seconds, when it was cut off or the daemon was stopping; one that
    came too soon after others is put off for as long.
    """

    def __init__(self, url: str | None = None, token: str | None = None, *, patience_s: float = PATIENCE_S) -> None:
        self._transport = AsyncTransport(find_endpoint(url, token))
        self._patience_s = patience_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections that are kept; the next call opens another.

        >>> await client.close()
        """
        await self._transport.close()

    async def call(self, call: Call[Value]) -> Value:
        """Carry out one operation of the table; the methods do nothing else.

        >>> from hearth.sdk import calls
        >>> (await client.call(calls.health())).status
        'healthy'
        """
        return call.read(await self.fetch(call.request))

    async def every(self, page_at: Callable[[str | None], Awaitable[Page[Item]]]) -> Sequence[Item]:
        """Give the items of all pages of a list, which ``page_at`` gives by their cursors.

        >>> from hearth.sdk import calls
        >>> one_by_one = lambda cursor: client.call(calls.list_page(labels={}, cursor=cursor, limit=1))
        >>> "web" in [view.name for view in await client.every(one_by_one)]
        True
        """
        page = await page_at(None)
        found = [*page.items]
        while page.next_cursor is not None:
            page = await page_at(page.next_cursor)
            found += page.items
        return found

    @contextlib.asynccontextmanager
    async def deaths_told(self, ref: str) -> AsyncIterator[None]:
        """Turn the failure of what needed a sandbox into SandboxDied, where its machine's end is why.

        >>> from hearth.sdk import calls
        >>> async with client.deaths_told("web"):
        ...     (await client.call(calls.run("web", ["true"], {}))).exit_code
        0
        """
        try:
            yield
        except (GuestFailed, Conflict) as error:
            cause = await self._cause_of_death(ref, looks=NEWS_LOOKS if isinstance(error, GuestFailed) else 0)
            if cause is None:
                raise
            raise SandboxDied(cause, error) from error

    async def fetch(self, request: HttpRequest) -> HttpResponse:
        """Send a request, again where that does no harm, and give the answer, whatever it is.

        >>> from hearth.sdk import calls
        >>> (await client.fetch(calls.health().request)).status
        200
        """
        retries = Retries(request, self._patience_s)
        while True:
            try:
                response = await self._transport.fetch(request)
            except Unavailable as error:
                pause_s = retries.after_loss(error)
                if pause_s is None:
                    raise
            else:
                pause_s = retries.after_answer(response)
                if pause_s is None:
                    return response
            await asyncio.sleep(pause_s)

    async def _cause_of_death(self, ref: str, *, looks: int) -> ExitCauseView | None:
        try:
            view = await self.call(calls.get(ref))
            while may_be_news(view) and looks > 0:
                looks -= 1
                await asyncio.sleep(NEWS_POLL_S)
                view = await self.call(calls.get(ref))
        except NotFound:
            with contextlib.suppress(HearthError):
                return (await self.call(sleep_calls.ending(ref))).exit_cause
            return None
        except HearthError:
            return None  # the caller has an error to raise already
        return cause_in(view)
