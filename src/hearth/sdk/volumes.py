# Made of async_volumes.py by 'make twins': change that.
"""Volumes for the blocking client: disks with a name that outlive sandboxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from hearth.api.volume_schemas import MountedVolume, VolumeView
from hearth.sdk import volume_calls
from hearth.sdk.core import Core
from hearth.sdk.volume_calls import LinkOptions


class Volumes(Core):
    """The calls of volumes."""

    def create_volume(self, name: str, size_mb: int) -> VolumeView:
        """Make an empty volume of so many MiB with a file system.

        >>> client.create_volume("data", 64).state
        'ready'
        >>> client.delete_volume("data")
        """
        return self.call(volume_calls.create(name, size_mb))

    def link_volume(self, name: str, provisioned: str, **options: Unpack[LinkOptions]) -> VolumeView:
        """Make a volume of a provisioned one, for sandboxes of its owner; for administrators.

        >>> client.link_volume("tools", "no-such-volume")
        Traceback (most recent call last):
        hearth.errors.NotFound: ...
        """
        return self.call(volume_calls.link(name, provisioned, options))

    def volumes(self) -> Sequence[VolumeView]:
        """Give all volumes, oldest first, and who has them.

        >>> [volume.name for volume in client.volumes()]
        []
        """
        return self.every(lambda cursor: self.call(volume_calls.page(cursor)))

    def volume(self, ref: str) -> VolumeView:
        """Give one volume.

        >>> made = client.create_volume("models", 64)
        >>> client.volume("models").size_mb
        64
        >>> client.delete_volume("models")
        """
        return self.call(volume_calls.get(ref))

    def resize_volume(self, ref: str, size_mb: int) -> VolumeView:
        """Grow a volume that no sandbox has to so many MiB.

        >>> made = client.create_volume("grows", 64)
        >>> client.resize_volume("grows", 96).size_mb
        96
        >>> client.delete_volume("grows")
        """
        return self.call(volume_calls.resize(ref, size_mb))

    def clone_volume(self, ref: str, name: str) -> VolumeView:
        """Copy a volume that no sandbox writes to.

        >>> made = client.create_volume("one", 64)
        >>> client.clone_volume("one", "two").name
        'two'
        >>> client.delete_volume("two")
        >>> client.delete_volume("one")
        """
        return self.call(volume_calls.clone(ref, name))

    def delete_volume(self, ref: str) -> None:
        """Delete a volume that no sandbox has, for good.

        >>> made = client.create_volume("scratch", 64)
        >>> client.delete_volume("scratch")
        """
        self.call(volume_calls.delete(ref))

    def attach_volume(self, ref: str, volume: str, mount: str, *, read_only: bool = False) -> MountedVolume:
        """Mount a volume in a sandbox: alone and writable, or read-only together with others.

        >>> made = client.create_volume("logs", 64)
        >>> client.attach_volume("web", "logs", "/var/log/web").mount
        '/var/log/web'
        >>> client.detach_volume("web", "logs")
        >>> client.delete_volume("logs")
        """
        return self.call(volume_calls.attach(ref, volume, mount, read_only=read_only))

    def detach_volume(self, ref: str, volume: str) -> None:
        """Unmount a volume and take it out of a sandbox.

        Raises:
            Conflict: something in the sandbox uses it.

        >>> made = client.create_volume("mail", 64)
        >>> mounted = client.attach_volume("web", "mail", "/var/mail/web")
        >>> client.detach_volume("web", "mail")
        >>> client.delete_volume("mail")
        """
        self.call(volume_calls.detach(ref, volume))
