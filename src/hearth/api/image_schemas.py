"""Bodies and queries of images. The conventions are those of ``schemas``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from hearth.api.limits import DEFAULT_LIST_LIMIT, MAX_LIST_LIMIT
from hearth.api.schemas import Name

Text = Annotated[str, Meta(min_length=1, max_length=512)]
PlatformText = Annotated[
    str, Meta(min_length=1, max_length=64, description="Such as linux/arm64; this host's if absent.")
]


class ListImages(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query of the list of images."""

    limit: Annotated[int, Meta(ge=1, le=MAX_LIST_LIMIT)] = DEFAULT_LIST_LIMIT
    cursor: Annotated[str, Meta(max_length=512)] | None = None


class ImageDefaults(Struct, frozen=True, kw_only=True):
    """What a container image says of the programs that run in it; commands that say otherwise count more.

    ``entrypoint`` and ``cmd`` are told and never run: what runs in a sandbox, its user says.
    """

    env: dict[str, str] = {}
    working_dir: str | None = None
    user: str | None = None
    entrypoint: list[str] = []
    cmd: list[str] = []
    labels: dict[str, str] = {}


class ImageView(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One image. ``size_bytes`` is what a disk made of it has at first; ``disk_bytes`` what the image takes on disk.

    ``owner`` is the user whose it is; without one it is the host's, which everybody sees. ``source`` is where it came
    from: a reference in a registry, ``import``, or the sandbox whose disk it was. A ``deleting`` one has no name any
    more and goes when nothing lies over it; a ``superseded`` one was replaced by a newer one of its name.

    Those of kind ``golden`` are kept for volumes and images to be made of; administrators see them. Their ``sha256`` is
    that of the object at ``source``; ``format``, ``last_used_at``, ``pinned`` and ``in_use`` are told of them alone.
    """

    id: str
    name: str
    kind: str
    size_bytes: int
    sha256: str
    created_at: datetime
    state: Literal["ready", "superseded", "deleting"]
    disk_bytes: int
    owner: str | None = None
    source: str | None = None
    digest: str | None = None
    platform: str | None = None
    defaults: ImageDefaults | None = None
    format: str | None = None
    last_used_at: datetime | None = None
    pinned: bool = False
    in_use: bool = False


class ImageList(Struct, frozen=True, kw_only=True):
    """One page; ``next_cursor`` is absent on the last one."""

    items: list[ImageView]
    next_cursor: str | None = None


class PullImage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An image in a registry: ``[HOST[:PORT]/]PATH[:TAG][@DIGEST]``, as container tools write it.

    Without a ``name`` it is called after the last part of its path and its tag. ``secret`` is one of the caller's
    secrets that holds ``USERNAME:PASSWORD``, or the password alone where a ``username`` is given. ``insecure`` speaks
    without TLS to a registry for which the operator permits that. A ``shared`` image is the host's, which
    administrators alone may give it.
    """

    reference: Text
    name: Name | None = None
    platform: PlatformText | None = None
    username: Text | None = None
    password: Annotated[str, Meta(min_length=1, max_length=16_384)] | None = None
    secret: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    insecure: bool = False
    shared: bool = False


class ImportImage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Query of an import, whose body is the archive."""

    name: Name
    platform: PlatformText | None = None
    shared: bool = False


class GoldenImage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A golden image, whose root file system is to be an image: by ``image_url``, or the ``key`` of one that is kept.

    ``image_type`` and ``checksum`` are those of a volume to be filled. ``partition`` is the number of the one with the
    root file system, 0 for a disk without a partition table; without it, that is found out.
    """

    name: Name
    image_url: Annotated[str, Meta(max_length=2048)] | None = None
    key: Annotated[str, Meta(max_length=80)] | None = None
    image_type: Annotated[str, Meta(max_length=64)] = "qcow2"
    checksum: Annotated[str, Meta(min_length=1, max_length=80)] | None = None
    partition: Annotated[int, Meta(ge=0, le=1024)] | None = None
    shared: bool = False


class PrefetchImage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A golden image to be kept before anybody needs it."""

    image_url: Annotated[str, Meta(max_length=2048)]
    image_type: Annotated[str, Meta(max_length=64)] = "qcow2"
    checksum: Annotated[str, Meta(min_length=1, max_length=80)] | None = None


class SaveImage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sandbox, by id or name, whose disk becomes an image, and what to call that."""

    sandbox: Annotated[str, Meta(min_length=1, max_length=128)]
    name: Name
