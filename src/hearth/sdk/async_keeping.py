"""What is kept besides sandboxes, for the asynchronous client: checkpoints, images, machines kept ready, endings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from hearth.api.image_schemas import ImageView
from hearth.api.sleep_schemas import EndingView, MachineTemplateView, SnapshotView
from hearth.sdk import sleep_calls
from hearth.sdk.async_core import AsyncCore
from hearth.sdk.sleep_calls import ShapeOptions


class AsyncKeeping(AsyncCore):
    """The calls of what is kept."""

    async def checkpoint(self, ref: str, name: str) -> SnapshotView:
        """Keep memory and disk of a living sandbox under a name, for any number of others to start from.

        >>> (await client.checkpoint("web", "before")).state
        'ready'
        >>> await client.delete_snapshot("before")
        """
        async with self.deaths_told(ref):
            return await self.call(sleep_calls.checkpoint(ref, name))

    async def save_image(self, ref: str, name: str) -> ImageView:
        """Make an image of a sandbox's disk, to create others of.

        >>> (await client.save_image("web", "web-with-tools")).kind
        'rootfs'
        """
        return await self.call(sleep_calls.save_image(ref, name))

    async def snapshots(self) -> Sequence[SnapshotView]:
        """Give all checkpoints, oldest first.

        >>> [snapshot.name for snapshot in await client.snapshots()]
        []
        """
        return await self.every(lambda cursor: self.call(sleep_calls.snapshots_page(cursor)))

    async def snapshot(self, ref: str) -> SnapshotView:
        """Give one checkpoint.

        >>> kept = await client.checkpoint("web", "kept")
        >>> (await client.snapshot("kept")).sandbox_name
        'web'
        >>> await client.delete_snapshot("kept")
        """
        return await self.call(sleep_calls.snapshot(ref))

    async def delete_snapshot(self, ref: str) -> None:
        """Delete a checkpoint; what others need of it stays until they are gone.

        >>> kept = await client.checkpoint("web", "for-a-while")
        >>> await client.delete_snapshot("for-a-while")
        """
        await self.call(sleep_calls.delete_snapshot(ref))

    async def endings(self) -> Sequence[EndingView]:
        """Tell of the sandboxes that were destroyed, the first to end first, without their consoles.

        >>> async with await client.create(name="gone"):
        ...     pass
        >>> "gone" in [ending.name for ending in await client.endings()]
        True
        """
        return await self.every(lambda cursor: self.call(sleep_calls.endings_page(cursor)))

    async def ending(self, ref: str) -> EndingView:
        """Tell why a destroyed sandbox ended: by its id, or of those that bore a name the last.

        >>> async with await client.create(name="ended"):
        ...     pass
        >>> (await client.ending("ended")).exit_cause.kind
        'user'
        """
        return await self.call(sleep_calls.ending(ref))

    async def machine_templates(self) -> Sequence[MachineTemplateView]:
        """Give the machines kept ready to be cloned.

        >>> sum(template.size_bytes for template in await client.machine_templates()) >= 0
        True
        """
        return (await self.call(sleep_calls.machine_templates())).items

    async def warm_machine_template(self, **shape: Unpack[ShapeOptions]) -> MachineTemplateView:
        """Boot a machine of a shape and keep it ready: not even the first creation has to boot then.

        >>> (await client.warm_machine_template(image="debian", cpus=1, memory_mb=256)).memory_mb
        256
        """
        return await self.call(sleep_calls.warm_machine_template(shape))

    async def delete_machine_template(self, ref: str) -> None:
        """Drop a machine kept ready; only administrators may.

        >>> template = await client.warm_machine_template(image="debian", memory_mb=192)
        >>> await client.delete_machine_template(template.id)
        """
        await self.call(sleep_calls.delete_machine_template(ref))
