"""Volumes filled from golden images, for the asynchronous client: ``await client.provisioning.start(...)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from hearth.api.event_schemas import JobView
from hearth.api.provision_schemas import CachedImage, ProvisionedVolume, ProvisionForecast
from hearth.sdk import event_calls, provision_calls
from hearth.sdk.async_images import AsyncCaller, AsyncImageJob
from hearth.sdk.async_transport import AsyncTransport
from hearth.sdk.provision_calls import ProvisionOptions


class AsyncProvisionJob(AsyncImageJob):
    """A volume on its way. Iterate for how far it is, to its end; breaking off the iteration breaks nothing off."""

    async def filled(self) -> JobView:
        """Wait until the volume is there, and give the job, which tells where. Raises as the iteration."""
        async for _ in self:
            pass
        return self.job


class AsyncProvisioning:
    """Volumes that were filled from golden images, and the images kept for them; for administrators."""

    def __init__(self, client: AsyncCaller, transport: AsyncTransport) -> None:
        self._client = client
        self._transport = transport

    async def start(
        self, image_url: str, volume_name: str, size_gb: float, **options: Unpack[ProvisionOptions]
    ) -> AsyncProvisionJob:
        """Begin to fill a volume of ``size_gb`` GiB: iterate for progress, or wait until it is ``filled``.

        >>> image = here / "golden.raw"
        >>> image.write_bytes(b"golden" * 100_000)
        600000
        >>> job = await client.provisioning.start(image.as_uri(), "vm1", 0.5, image_type="raw")
        >>> (await job.filled()).cache_hit
        False
        >>> await client.provisioning.delete("vm1")
        """
        started = await self._client.call(provision_calls.start(image_url, volume_name, size_gb, options))
        job = await self._client.call(event_calls.job(started.job_id))
        return AsyncProvisionJob(self._client, self._transport, job)

    async def forecast(
        self, image_url: str, volume_name: str, size_gb: float, **options: Unpack[ProvisionOptions]
    ) -> ProvisionForecast:
        """Tell what that would come to, and do nothing.

        >>> image = here / "golden.raw"
        >>> image.write_bytes(b"golden" * 100_000)
        600000
        >>> told = await client.provisioning.forecast(image.as_uri(), "vm2", 0.5, image_type="raw")
        >>> (told.image_size_bytes, told.strategy, told.replaces)
        (600000, 'clone', False)
        """
        return await self._client.call(provision_calls.forecast(image_url, volume_name, size_gb, options))

    async def volumes(self) -> Sequence[ProvisionedVolume]:
        """Give all volumes that were filled.

        >>> await client.provisioning.volumes()
        []
        """
        return (await self._client.call(provision_calls.volumes())).items

    async def volume(self, name: str, *, pool: str | None = None) -> ProvisionedVolume:
        """Give one.

        >>> image = here / "golden.raw"
        >>> image.write_bytes(b"golden" * 100_000)
        600000
        >>> job = await client.provisioning.start(image.as_uri(), "vm3", 0.5, image_type="raw")
        >>> done = await job.filled()
        >>> (await client.provisioning.volume("vm3")).path == done.volume_path
        True
        >>> await client.provisioning.delete("vm3")
        """
        return await self._client.call(provision_calls.volume(name, pool))

    async def grow(
        self, name: str, size_gb: float, *, pool: str | None = None, grow: str = "table"
    ) -> ProvisionedVolume:
        """Make one larger, while nobody uses it, and on it none, table, partition or filesystem (``grow``).

        >>> image = here / "golden.raw"
        >>> image.write_bytes(b"golden" * 100_000)
        600000
        >>> job = await client.provisioning.start(image.as_uri(), "vm4", 0.5, image_type="raw")
        >>> done = await job.filled()
        >>> (await client.provisioning.grow("vm4", 2)).size_bytes
        2147483648
        >>> await client.provisioning.delete("vm4")
        """
        return await self._client.call(provision_calls.grow(name, size_gb, pool, grow))

    async def delete(self, name: str, *, pool: str | None = None) -> None:
        """Delete one, while nobody uses it.

        >>> await client.provisioning.delete("no-such-volume")
        Traceback (most recent call last):
        hearth.errors.NotFound: ...
        """
        await self._client.call(provision_calls.delete(name, pool))

    async def images(self) -> Sequence[CachedImage]:
        """Give the golden images that are kept, the last used first.

        >>> kept = await client.provisioning.images()
        >>> all(image.size_bytes > 0 for image in kept)
        True
        """
        return (await self._client.call(provision_calls.cached())).items

    async def fetch(
        self, image_url: str, *, image_type: str = "qcow2", checksum: str | None = None
    ) -> AsyncProvisionJob:
        """Begin to have a golden image here before anybody needs it: iterate for progress, or wait as for a volume.

        >>> image = here / "golden.raw"
        >>> image.write_bytes(b"golden" * 100_000)
        600000
        >>> job = await client.provisioning.fetch(image.as_uri(), image_type="raw")
        >>> (await job.filled()).status
        'completed'
        """
        job = await self._client.call(provision_calls.prefetch(image_url, image_type, checksum))
        return AsyncProvisionJob(self._client, self._transport, job)

    async def pin(self, key: str, *, pinned: bool = True) -> CachedImage:
        """Keep an image for good, or no more.

        >>> image = here / "golden.raw"
        >>> image.write_bytes(b"golden" * 100_000)
        600000
        >>> job = await client.provisioning.start(image.as_uri(), "vm5", 0.5, image_type="raw")
        >>> done = await job.filled()
        >>> key = (await client.provisioning.volume("vm5")).image
        >>> (await client.provisioning.pin(key)).pinned
        True
        >>> (await client.provisioning.pin(key, pinned=False)).pinned
        False
        >>> await client.provisioning.delete("vm5")
        """
        return await self._client.call(provision_calls.pin(key, pinned=pinned))

    async def forget(self, key: str) -> None:
        """Remove an image that nobody uses.

        >>> await client.provisioning.forget("0" * 64)
        Traceback (most recent call last):
        hearth.errors.NotFound: ...
        """
        await self._client.call(provision_calls.uncache(key))
