# Made of async_provisioning.py by 'make twins': change that.
"""Volumes filled from golden images, for the blocking client: ``client.provisioning.start(...)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from hearth.api.event_schemas import JobView
from hearth.api.provision_schemas import CachedImage, ProvisionedVolume, ProvisionForecast
from hearth.sdk import event_calls, provision_calls
from hearth.sdk.images import Caller, ImageJob
from hearth.sdk.provision_calls import ProvisionOptions
from hearth.sdk.transport import Transport


class ProvisionJob(ImageJob):
    """A volume on its way. Iterate for how far it is, to its end; breaking off the iteration breaks nothing off."""

    def filled(self) -> JobView:
        """Wait until the volume is there, and give the job, which tells where. Raises as the iteration."""
        for _ in self:
            pass
        return self.job


class Provisioning:
    """Volumes that were filled from golden images, and the images kept for them; for administrators."""

    def __init__(self, client: Caller, transport: Transport) -> None:
        self._client = client
        self._transport = transport

    def start(
        self, image_url: str, volume_name: str, size_gb: float, **options: Unpack[ProvisionOptions]
    ) -> ProvisionJob:
        """Begin to fill a volume of ``size_gb`` GiB: iterate for progress, or wait until it is ``filled``.

        >>> image = here / "golden.raw"
        >>> image.write_bytes(b"golden" * 100_000)
        600000
        >>> job = client.provisioning.start(image.as_uri(), "vm1", 0.5, image_type="raw")
        >>> job.filled().cache_hit
        False
        >>> client.provisioning.delete("vm1")
        """
        started = self._client.call(provision_calls.start(image_url, volume_name, size_gb, options))
        job = self._client.call(event_calls.job(started.job_id))
        return ProvisionJob(self._client, self._transport, job)

    def forecast(
        self, image_url: str, volume_name: str, size_gb: float, **options: Unpack[ProvisionOptions]
    ) -> ProvisionForecast:
        """Tell what that would come to, and do nothing.

        >>> image = here / "golden.raw"
        >>> image.write_bytes(b"golden" * 100_000)
        600000
        >>> told = client.provisioning.forecast(image.as_uri(), "vm2", 0.5, image_type="raw")
        >>> (told.image_size_bytes, told.strategy, told.replaces)
        (600000, 'clone', False)
        """
        return self._client.call(provision_calls.forecast(image_url, volume_name, size_gb, options))

    def volumes(self) -> Sequence[ProvisionedVolume]:
        """Give all volumes that were filled.

        >>> client.provisioning.volumes()
        []
        """
        return self._client.call(provision_calls.volumes()).items

    def volume(self, name: str, *, pool: str | None = None) -> ProvisionedVolume:
        """Give one.

        >>> image = here / "golden.raw"
        >>> image.write_bytes(b"golden" * 100_000)
        600000
        >>> job = client.provisioning.start(image.as_uri(), "vm3", 0.5, image_type="raw")
        >>> done = job.filled()
        >>> client.provisioning.volume("vm3").path == done.volume_path
        True
        >>> client.provisioning.delete("vm3")
        """
        return self._client.call(provision_calls.volume(name, pool))

    def grow(self, name: str, size_gb: float, *, pool: str | None = None, grow: str = "table") -> ProvisionedVolume:
        """Make one larger, while nobody uses it, and on it none, table, partition or filesystem (``grow``).

        >>> image = here / "golden.raw"
        >>> image.write_bytes(b"golden" * 100_000)
        600000
        >>> job = client.provisioning.start(image.as_uri(), "vm4", 0.5, image_type="raw")
        >>> done = job.filled()
        >>> client.provisioning.grow("vm4", 2).size_bytes
        2147483648
        >>> client.provisioning.delete("vm4")
        """
        return self._client.call(provision_calls.grow(name, size_gb, pool, grow))

    def delete(self, name: str, *, pool: str | None = None) -> None:
        """Delete one, while nobody uses it.

        >>> client.provisioning.delete("no-such-volume")
        Traceback (most recent call last):
        hearth.errors.NotFound: ...
        """
        self._client.call(provision_calls.delete(name, pool))

    def images(self) -> Sequence[CachedImage]:
        """Give the golden images that are kept, the last used first.

        >>> kept = client.provisioning.images()
        >>> all(image.size_bytes > 0 for image in kept)
        True
        """
        return self._client.call(provision_calls.cached()).items

    def fetch(self, image_url: str, *, image_type: str = "qcow2", checksum: str | None = None) -> ProvisionJob:
        """Begin to have a golden image here before anybody needs it: iterate for progress, or wait as for a volume.

        >>> image = here / "golden.raw"
        >>> image.write_bytes(b"golden" * 100_000)
        600000
        >>> job = client.provisioning.fetch(image.as_uri(), image_type="raw")
        >>> job.filled().status
        'completed'
        """
        job = self._client.call(provision_calls.prefetch(image_url, image_type, checksum))
        return ProvisionJob(self._client, self._transport, job)

    def pin(self, key: str, *, pinned: bool = True) -> CachedImage:
        """Keep an image for good, or no more.

        >>> image = here / "golden.raw"
        >>> image.write_bytes(b"golden" * 100_000)
        600000
        >>> job = client.provisioning.start(image.as_uri(), "vm5", 0.5, image_type="raw")
        >>> done = job.filled()
        >>> key = client.provisioning.volume("vm5").image
        >>> client.provisioning.pin(key).pinned
        True
        >>> client.provisioning.pin(key, pinned=False).pinned
        False
        >>> client.provisioning.delete("vm5")
        """
        return self._client.call(provision_calls.pin(key, pinned=pinned))

    def forget(self, key: str) -> None:
        """Remove an image that nobody uses.

        >>> client.provisioning.forget("0" * 64)
        Traceback (most recent call last):
        hearth.errors.NotFound: ...
        """
        self._client.call(provision_calls.uncache(key))
