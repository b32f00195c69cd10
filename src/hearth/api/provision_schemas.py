"""Bodies of the calls about volumes that are filled from golden images, and about the images kept for them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from hearth.api.schemas import ONE_LINE

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Digest = Annotated[str, Meta(min_length=1, max_length=80)]
SizeGb = Annotated[float, Meta(gt=0)]


class Provision(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A volume to be filled from an image.

    ``image_url`` is ``s3://bucket/object``, or an http, https or file URL of a place that the operator lists;
    ``checksum`` the image's SHA-256, by default that in ``<object>.sha256``. ``volume_size_gb`` counts GiB. ``mode`` is
    ``clone`` (in a moment, sharing the image's bytes), ``copy``, or ``auto``: clone where the pool can. ``webhook_url``
    is called, signed, when the job ends, and with ``webhook_progress`` at its starts and steps too.

    ``grow`` is what takes the room beyond the image: ``none``, the partition ``table`` (its copy moves to the end), the
    last ``partition``, too, or the ``filesystem`` in it, too, if that is ext4. ``verify`` has the volume read again and
    compared with its image.
    """

    image_url: Annotated[str, Meta(max_length=2048)]
    volume_name: Annotated[str, Meta(max_length=256)]
    volume_size_gb: float
    image_type: Annotated[str, Meta(max_length=64)]
    correlation_id: Annotated[str, Meta(pattern=ONE_LINE, min_length=1, max_length=128)] | None = None
    pool: Name | None = None
    mode: Annotated[str, Meta(max_length=64)] = "auto"
    checksum: Digest | None = None
    grow: Annotated[str, Meta(max_length=64)] = "table"
    verify: bool = False
    dry_run: bool = False
    webhook_url: Annotated[str, Meta(min_length=1, max_length=2048)] | None = None
    webhook_progress: bool = False


class ProvisionStarted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The job that fills the volume; the same request again, while it is under way, gives the same job."""

    job_id: str
    status: Literal["pending", "running", "completed", "failed", "cancelled"]
    correlation_id: str | None = None
    queue_position: int | None = None


class ProvisionForecast(Struct, frozen=True, kw_only=True):
    """What a request would come to. Sizes in bytes; what is not known before the image is here is null.

    ``replaces`` tells of a volume of that name, which would be written anew. ``estimate_s`` is how long it may
    take once its turn has come, going by earlier ones; null where nothing like it was done yet.
    """

    volume_name: str
    pool: str
    image_size_bytes: int
    virtual_size_bytes: int | None
    checksum: str | None
    is_cached: bool
    strategy: Literal["clone", "copy"]
    why: str
    replaces: bool
    bytes_to_fetch: int
    bytes_to_write: int | None
    estimate_s: float | None = None


class ListProvisioned(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query of a call about one volume; without ``pool`` it is in the usual one."""

    pool: Name | None = None


class GrowProvisioned(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The new size, in GiB, and the pool where it is not the usual one; ``grow`` as in ``Provision``."""

    volume_size_gb: float
    pool: Name | None = None
    grow: Annotated[str, Meta(max_length=64)] = "table"


class ProvisionedVolume(Struct, frozen=True, kw_only=True):
    """A volume that was filled. ``format`` is how its file or device is to be read, ``image`` its image's SHA-256."""

    volume_name: str
    pool: str
    size_bytes: int
    path: str
    format: str
    image: str
    job_id: str


class ProvisionedList(Struct, frozen=True, kw_only=True):
    """All of them; ``next_cursor`` is never there."""

    items: list[ProvisionedVolume]
    next_cursor: str | None = None


class CachedImage(Struct, frozen=True, kw_only=True):
    """An image that is kept; ``key`` is its SHA-256. Pinned ones and those in use are never removed to make room.

    ``used_by`` are the jobs of this host that use it; others, such as those that make roots of sandboxes, are not told.
    """

    key: str
    url: str
    format: str
    size_bytes: int
    virtual_size_bytes: int
    allocated_bytes: int
    fetched_at: datetime
    last_used_at: datetime
    pinned: bool
    in_use: bool
    used_by: list[str] = []


class CachedImageList(Struct, frozen=True, kw_only=True):
    """All of them, the last used first; ``next_cursor`` is never there."""

    items: list[CachedImage]
    next_cursor: str | None = None


class PinCached(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether the image stays for good."""

    pinned: bool
