# Made of async_templates.py by 'make twins': change that.
"""Templates for the blocking client: ``client.templates.create("web", cpus=2, init=["…"])``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar, Unpack

from hearth.api.template_schemas import TemplateView
from hearth.sdk import template_calls
from hearth.sdk.call import Call
from hearth.sdk.settings import SettingsOptions
from hearth.sdk.template_calls import ChangeTemplateOptions

Value = TypeVar("Value")


class Caller(Protocol):
    """What carries calls out."""

    def call(self, call: Call[Value]) -> Value: ...


class Templates:
    """The caller's templates: descriptions of sandboxes to come."""

    def __init__(self, client: Caller) -> None:
        self._client = client

    def create(self, name: str, **options: Unpack[SettingsOptions]) -> TemplateView:
        """Keep a description under a name; what it says is checked as ``client.create`` would.

        >>> kept = client.templates.create("worker", env={"ROLE": "worker"}, init=["true"])
        >>> kept.env_names
        ['ROLE']
        >>> made = client.create(name="first-worker", template="worker")
        >>> made.run(["sh", "-c", "echo $ROLE"]).stdout
        'worker\\n'
        >>> made.destroy()
        >>> client.templates.delete("worker")
        """
        return self._client.call(template_calls.create(name, options))

    def every(self) -> Sequence[TemplateView]:
        """Give all, oldest first.

        >>> kept = client.templates.create("small", memory_mb=128)
        >>> [template.name for template in client.templates.every()]
        ['small']
        >>> client.templates.delete("small")
        """
        page = self._client.call(template_calls.page(None))
        found = [*page.items]
        while page.next_cursor is not None:
            page = self._client.call(template_calls.page(page.next_cursor))
            found += page.items
        return found

    def get(self, ref: str) -> TemplateView:
        """Give one, by id or name: of variables the names, of files places and sizes.

        >>> kept = client.templates.create("noted", files={"/etc/motd": "hello"})
        >>> [(file.guest_path, file.size_bytes) for file in client.templates.get("noted").files]
        [('/etc/motd', 5)]
        >>> client.templates.delete("noted")
        """
        return self._client.call(template_calls.get(ref))

    def change(self, ref: str, **options: Unpack[ChangeTemplateOptions]) -> TemplateView:
        """Let one say something else from now on; what is left out stays, None takes away.

        >>> kept = client.templates.create("brief", ttl_s=60, memory_mb=128)
        >>> changed = client.templates.change("brief", ttl_s=None, memory_mb=256)
        >>> (changed.ttl_s, changed.memory_mb)
        (None, 256)
        >>> client.templates.delete("brief")
        """
        return self._client.call(template_calls.change(ref, options))

    def delete(self, ref: str) -> None:
        """Delete one; sandboxes that were made of it stay.

        >>> kept = client.templates.create("gone-soon")
        >>> client.templates.delete("gone-soon")
        """
        self._client.call(template_calls.delete(ref))
