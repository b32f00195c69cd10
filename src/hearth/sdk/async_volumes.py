"""Volumes for the asynchronous client: disks with a name that outlive sandboxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from hearth.api.volume_schemas import MountedVolume, VolumeView
from hearth.sdk import volume_calls
from hearth.sdk.async_core import AsyncCore
from hearth.sdk.volume_calls import LinkOptions


class AsyncVolumes(AsyncCore):
    """The calls of volumes."""

    async def create_volume(self, name: str, size_mb: int) -> VolumeView:
        """Make an empty volume of so many MiB with a file system.

        >>> (await client.create_volume("data", 64)).state
        'ready'
        >>> await client.delete_volume("data")
        """
        return await self.call(volume_calls.create(name, size_mb))

    async def link_volume(self, name: str, provisioned: str, **options: Unpack[LinkOptions]) -> VolumeView:
        """Make a volume of a provisioned one, for sandboxes of its owner; for administrators.

        >>> await client.link_volume("tools", "no-such-volume")
        Traceback (most recent call last):
        hearth.errors.NotFound: ...
        """
        return await self.call(volume_calls.link(name, provisioned, options))

    async def volumes(self) -> Sequence[VolumeView]:
        """Give all volumes, oldest first, and who has them.

        >>> [volume.name for volume in await client.volumes()]
        []
        """
        return await self.every(lambda cursor: self.call(volume_calls.page(cursor)))

    async def volume(self, ref: str) -> VolumeView:
        """Give one volume.

        >>> made = await client.create_volume("models", 64)
        >>> (await client.volume("models")).size_mb
        64
        >>> await client.delete_volume("models")
        """
        return await self.call(volume_calls.get(ref))

    async def resize_volume(self, ref: str, size_mb: int) -> VolumeView:
        """Grow a volume that no sandbox has to so many MiB.

        >>> made = await client.create_volume("grows", 64)
        >>> (await client.resize_volume("grows", 96)).size_mb
        96
        >>> await client.delete_volume("grows")
        """
        return await self.call(volume_calls.resize(ref, size_mb))

    async def clone_volume(self, ref: str, name: str) -> VolumeView:
        """Copy a volume that no sandbox writes to.

        >>> made = await client.create_volume("one", 64)
        >>> (await client.clone_volume("one", "two")).name
        'two'
        >>> await client.delete_volume("two")
        >>> await client.delete_volume("one")
        """
        return await self.call(volume_calls.clone(ref, name))

    async def delete_volume(self, ref: str) -> None:
        """Delete a volume that no sandbox has, for good.

        >>> made = await client.create_volume("scratch", 64)
        >>> await client.delete_volume("scratch")
        """
        await self.call(volume_calls.delete(ref))

    async def attach_volume(self, ref: str, volume: str, mount: str, *, read_only: bool = False) -> MountedVolume:
        """Mount a volume in a sandbox: alone and writable, or read-only together with others.

        >>> made = await client.create_volume("logs", 64)
        >>> (await client.attach_volume("web", "logs", "/var/log/web")).mount
        '/var/log/web'
        >>> await client.detach_volume("web", "logs")
        >>> await client.delete_volume("logs")
        """
        return await self.call(volume_calls.attach(ref, volume, mount, read_only=read_only))

    async def detach_volume(self, ref: str, volume: str) -> None:
        """Unmount a volume and take it out of a sandbox.

        Raises:
            Conflict: something in the sandbox uses it.

        >>> made = await client.create_volume("mail", 64)
        >>> mounted = await client.attach_volume("web", "mail", "/var/mail/web")
        >>> await client.detach_volume("web", "mail")
        >>> await client.delete_volume("mail")
        """
        await self.call(volume_calls.detach(ref, volume))
