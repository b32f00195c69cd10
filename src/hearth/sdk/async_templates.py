"""Templates for the asynchronous client: ``client.templates.create("web", cpus=2, init=["…"])``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar, Unpack

from hearth.api.template_schemas import TemplateView
from hearth.sdk import template_calls
from hearth.sdk.call import Call
from hearth.sdk.settings import SettingsOptions
from hearth.sdk.template_calls import ChangeTemplateOptions

Value = TypeVar("Value")


class AsyncCaller(Protocol):
    """What carries calls out."""

    async def call(self, call: Call[Value]) -> Value: ...


class AsyncTemplates:
    """The caller's templates: descriptions of sandboxes to come."""

    def __init__(self, client: AsyncCaller) -> None:
        self._client = client

    async def create(self, name: str, **options: Unpack[SettingsOptions]) -> TemplateView:
        """Keep a description under a name; what it says is checked as ``client.create`` would.

        >>> kept = await client.templates.create("worker", env={"ROLE": "worker"}, init=["true"])
        >>> kept.env_names
        ['ROLE']
        >>> made = await client.create(name="first-worker", template="worker")
        >>> (await made.run(["sh", "-c", "echo $ROLE"])).stdout
        'worker\\n'
        >>> await made.destroy()
        >>> await client.templates.delete("worker")
        """
        return await self._client.call(template_calls.create(name, options))

    async def every(self) -> Sequence[TemplateView]:
        """Give all, oldest first.

        >>> kept = await client.templates.create("small", memory_mb=128)
        >>> [template.name for template in await client.templates.every()]
        ['small']
        >>> await client.templates.delete("small")
        """
        page = await self._client.call(template_calls.page(None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = await self._client.call(template_calls.page(page.next_cursor))
            found += page.items
        return found

    async def get(self, ref: str) -> TemplateView:
        """Give one, by id or name: of variables the names, of files places and sizes.

        >>> kept = await client.templates.create("noted", files={"/etc/motd": "hello"})
        >>> [(file.guest_path, file.size_bytes) for file in (await client.templates.get("noted")).files]
        [('/etc/motd', 5)]
        >>> await client.templates.delete("noted")
        """
        return await self._client.call(template_calls.get(ref))

    async def change(self, ref: str, **options: Unpack[ChangeTemplateOptions]) -> TemplateView:
        """Let one say something else from now on; what is left out stays, None takes away.

        >>> kept = await client.templates.create("brief", ttl_s=60, memory_mb=128)
        >>> changed = await client.templates.change("brief", ttl_s=None, memory_mb=256)
        >>> (changed.ttl_s, changed.memory_mb)
        (None, 256)
        >>> await client.templates.delete("brief")
        """
        return await self._client.call(template_calls.change(ref, options))

    async def delete(self, ref: str) -> None:
        """Delete one; sandboxes that were made of it stay.

        >>> kept = await client.templates.create("gone-soon")
        >>> await client.templates.delete("gone-soon")
        """
        await self._client.call(template_calls.delete(ref))
