"""The steps by which an image comes here: pulled from a registry, or imported from an archive; and how far they are.

Those of golden images are in ``golden_images``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from hearth.control.images import Images
from hearth.image.container import Source, build_container
from hearth.image.layers.orders import Told
from hearth.image.layers.refused import refused
from hearth.image.oci.blobs import BlobCache
from hearth.image.oci.documents import Defaults, Descriptor, Platform
from hearth.image.oci.reference import Reference
from hearth.image.oci.registry import Credentials, Registry, Resolved
from hearth.image.oci.transport import Transport
from hearth.image.store import Image, Made, build_key
from hearth.jobs.plan import Plan, Step
from hearth.model import ImageKind

PULL_KIND, IMPORT_KIND, GOLDEN_KIND, FETCH_KIND = "image.pull", "image.import", "image.golden", "image.fetch"
KINDS = (PULL_KIND, IMPORT_KIND, GOLDEN_KIND, FETCH_KIND)
AT_ONCE = 3
"""Layers that are fetched at once."""
SHARES = {
    "resolving": (0.0, 2.0),
    "waiting": (2.0, 2.0),
    "downloading": (2.0, 60.0),
    "verifying": (60.0, 65.0),
    "extracting": (65.0, 92.0),
    "reading": (0.0, 25.0),
    "merging": (60.0, 78.0),
    "writing": (78.0, 92.0),
    "creating": (92.0, 100.0),
}
"""Where each stage begins and ends, in percent of the whole."""


@dataclass(frozen=True, kw_only=True)
class ImageWork:
    """The input of the job: nothing outside of it has to be undone, and nothing secret is stored."""

    name: str
    source: str


@dataclass(kw_only=True)
class Stage:
    """How far it is: bytes done of a stage's total, which is 0 where nobody knows it."""

    name: str = "pending"
    done: int = 0
    total: int = 0

    @property
    def percent(self) -> float:
        """Tell how much of the whole is done."""
        begin, end = SHARES.get(self.name, (0.0, 0.0))
        part = min(self.done / self.total, 1.0) if self.total > 0 else 0.0
        return begin + (end - begin) * part


OnStage = Callable[[Stage], None]


@dataclass(frozen=True, kw_only=True)
class Pull:
    """What somebody wants from a registry; the credentials are in memory alone."""

    reference: Reference
    platform: Platform
    credentials: Credentials | None = field(default=None, repr=False)
    insecure: bool = False


@dataclass(frozen=True, kw_only=True)
class Import:
    """An archive that somebody sent, and the checksum of its bytes; ``release`` deletes it."""

    archive: Path
    sha256: str
    platform: Platform
    release: Callable[[], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Destination:
    """What the image will be: its name, whose, how much may come out of it, and how many are made at once."""

    name: str
    owner: str | None
    max_bytes: int
    slots: asyncio.Semaphore


class Work(Protocol):
    """What ends in an image."""

    image: Image | None

    def plan(self) -> Plan[ImageWork]:
        """Give the steps."""
        ...


class Maker:
    """One image on its way."""

    def __init__(self, images: Images, to: Destination, on_stage: OnStage) -> None:
        self.image: Image | None = None
        self._images = images
        self._to = to
        self._stage = Stage()
        self._on_stage = on_stage

    def _begin(self, name: str, total: int = 0) -> None:
        self._stage.name, self._stage.done, self._stage.total = name, 0, total
        self._on_stage(self._stage)

    def _add(self, count: int) -> None:
        self._stage.done += count
        self._on_stage(self._stage)

    def _told(self, told: Told) -> None:
        self._stage.name, self._stage.done, self._stage.total = told.stage, told.done, told.total
        self._on_stage(self._stage)

    async def _create(self, source: Source, inputs: Mapping[str, Any]) -> None:
        to = self._to
        key = build_key(ImageKind.ROOTFS, {**inputs, "owner": to.owner, "name": to.name, "version": 1})

        async def build(staging: Path) -> Made:
            return await build_container(source, staging, label=to.name, seed=key, on_told=self._told)

        async with to.slots:
            self.image = await self._images.build(ImageKind.ROOTFS, to.name, key, build, owner=to.owner)

    async def _nothing(self, _: ImageWork) -> None:
        """What is half-made is in a staging directory, which goes by itself; layers that came whole stay for later."""


class PullWork(Maker):
    """An image from a registry."""

    def __init__(
        self, images: Images, cache: BlobCache, pull: Pull, to: Destination, transport: Transport, on_stage: OnStage
    ) -> None:
        super().__init__(images, to, on_stage)
        self._cache = cache
        self._pull = pull
        self._registry = Registry(transport, pull.reference, pull.credentials, insecure=pull.insecure)
        self._found: Resolved | None = None
        self._paths: dict[str, Path] = {}

    def plan(self) -> Plan[ImageWork]:
        """Give the steps."""
        steps = [("resolving", self._resolve), ("downloading", self._download), ("creating", self._make)]
        return Plan(
            kind=PULL_KIND,
            input_type=ImageWork,
            steps=[Step(name=name, do=do, undo=self._nothing) for name, do in steps],
        )

    async def _resolve(self, _: ImageWork) -> None:
        self._begin("resolving")
        self._found = await self._registry.resolve(self._pull.platform)
        if self._found.size_bytes > self._to.max_bytes:
            raise too_large(self._found.size_bytes, self._to.max_bytes)

    async def _download(self, _: ImageWork) -> None:
        layers = {layer.digest: layer for layer in self._resolved.layers}
        self._begin("downloading", sum(layer.size for layer in layers.values()))
        slots = asyncio.Semaphore(AT_ONCE)

        async def fetch(layer: Descriptor) -> None:
            async with slots:
                self._paths[layer.digest] = await self._cache.obtain(self._registry, layer, self._add)

        with self._cache.kept(self._registry, layers.values()):
            try:
                async with asyncio.TaskGroup() as group:
                    for layer in layers.values():
                        group.create_task(fetch(layer), name=f"layer {layer.digest[:19]}")
            except ExceptionGroup as errors:
                raise first_of(errors) from errors

    async def _make(self, _: ImageWork) -> None:
        found = self._resolved
        with self._cache.kept(self._registry, found.layers):
            self._begin("merging")
            source = Source(
                platform=self._pull.platform,
                max_bytes=self._to.max_bytes,
                layers=tuple(self._paths[layer.digest] for layer in found.layers),
                diff_ids=tuple(found.config.rootfs.diff_ids),
                defaults=found.config.config or Defaults(),
                facts={
                    "source": str(self._pull.reference),
                    "digest": found.digest,
                    "platform": str(self._pull.platform),
                },
            )
            await self._create(source, {"manifest": found.digest, "config": found.config_digest})

    @property
    def _resolved(self) -> Resolved:
        if self._found is None:
            raise AssertionError("it is resolved first")
        return self._found


class ImportWork(Maker):
    """An image from an archive."""

    def __init__(self, images: Images, given: Import, to: Destination, on_stage: OnStage) -> None:
        super().__init__(images, to, on_stage)
        self._given = given

    def plan(self) -> Plan[ImageWork]:
        """Give the steps."""
        step = Step(name="creating", do=self._make, undo=self._nothing)
        return Plan(kind=IMPORT_KIND, input_type=ImageWork, steps=[step])

    async def _make(self, _: ImageWork) -> None:
        try:
            await self._read(self._given)
        finally:
            await self._given.release()

    async def _read(self, given: Import) -> None:
        self._begin("reading")
        digest = f"sha256:{given.sha256}"
        source = Source(
            platform=given.platform,
            max_bytes=self._to.max_bytes,
            archive=given.archive,
            facts={"source": "import", "digest": digest, "platform": str(given.platform)},
        )
        await self._create(source, {"archive": digest, "platform": str(given.platform)})


def too_large(size: int, most: int) -> Exception:
    """Say that an image has too many bytes."""
    return refused(
        f"its layers have {size} bytes, {most} may be",
        resolution="take a smaller one, or ask the operator for a higher --image-max-mib",
    )


def first_of(group: ExceptionGroup[Exception]) -> Exception:
    """Give one error of a group: what failed first cancelled the rest."""
    error = group.exceptions[0]
    return first_of(error) if isinstance(error, ExceptionGroup) else error


async def _undone(_: ImageWork) -> None:
    """Nothing is left of it."""


def unfinished_plans() -> tuple[Plan[ImageWork], ...]:
    """Give plans that undo what a crash left of such jobs: nothing; what was staged is swept by the image store."""
    step = Step(name="creating", do=_undone, undo=_undone)
    return tuple(Plan(kind=kind, input_type=ImageWork, steps=[step]) for kind in KINDS)
