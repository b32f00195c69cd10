"""The JSON documents of images: index, manifest, configuration, Docker's list of a saved archive; and which to choose.

Shapes: OCI image specification 1.1 (image-index.md, manifest.md, config.md); Docker's schema 2 is the same under other
media types. What is not known is passed over; what is used is checked.
"""

from __future__ import annotations

import hashlib
import platform as host
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, TypeVar

import msgspec

from hearth.errors import InvalidInput
from hearth.image.layers.refused import refused

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
MAX_LAYERS = 256
DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64", "ppc64le": "ppc64le"}
PLATFORM = re.compile(r"(?:([a-z0-9]+)/)?([a-z0-9_]+)(?:/(v[0-9]+))?")
MAX_ENV_BYTES = 128 * 1024

T = TypeVar("T")
Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """What an image runs on, in Go's words."""

    os: str = "linux"
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A document or blob: its checksum and size in bytes."""

    digest: str
    size: Size
    media_type: str = ""
    platform: Platform | None = None


class Index(msgspec.Struct, frozen=True, kw_only=True):
    manifests: list[Descriptor]


class ImageManifest(msgspec.Struct, frozen=True, kw_only=True):
    """One image: its configuration and its layers, the lowest first."""

    config: Descriptor
    layers: list[Descriptor]


class Defaults(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """What an image says of the programs that run in it."""

    env: list[str] | None = None
    working_dir: str | None = None
    user: str | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    labels: dict[str, str] | None = None


class RootFs(msgspec.Struct, frozen=True, kw_only=True):
    """The checksums of the layers without compression."""

    diff_ids: list[str]


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """An image's configuration."""

    rootfs: RootFs
    config: Defaults | None = None
    os: str = "linux"
    architecture: str = ""
    variant: str = ""


class SavedImage(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    """One image in the ``manifest.json`` of an archive made by ``docker save``."""

    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A manifest that was chosen, and its own checksum."""

    digest: str
    manifest: ImageManifest


def decode(data: bytes, kind: type[T], what: str) -> T:
    """Read a document. Raises ImageRefused where it is not of that kind."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refused(f"its {what} cannot be read: {error}") from error


def check_digest(value: str, what: str) -> str:
    """Give a checksum as it is. Raises ImageRefused where it is none, or of a kind that proves nothing."""
    if DIGEST.fullmatch(value) is None:
        raise refused(f"the digest of its {what} is none that is known: {value[:80]!r}")
    return value


def digest_of(data: bytes, like: str = "sha256:") -> str:
    """Give the checksum of some bytes, of the kind of ``like``."""
    algorithm = like.partition(":")[0]
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def check_content(data: bytes, descriptor: Descriptor, what: str) -> None:
    """Compare bytes with what they should be. Raises ImageRefused."""
    check_digest(descriptor.digest, what)
    if len(data) != descriptor.size or digest_of(data, descriptor.digest) != descriptor.digest:
        raise refused(f"its {what} is not what its digest says: {descriptor.digest}")


def read_manifest(data: bytes) -> ImageManifest:
    """Read a manifest and check that it is one of an image.

    Raises:
        ImageRefused: it is not, or has more layers than may be.
    """
    manifest = decode(data, ImageManifest, "manifest")
    if len(manifest.layers) > MAX_LAYERS:
        raise refused(f"it has {len(manifest.layers)} layers, {MAX_LAYERS} may be")
    for each in (manifest.config, *manifest.layers):
        check_digest(each.digest, "manifest")
    return manifest


def read_config(data: bytes, layers: int, wanted: Platform) -> ImageConfig:
    """Read a configuration and check it against its manifest.

    Raises:
        ImageRefused: it is no image's, or of another platform.
    """
    config = decode(data, ImageConfig, "configuration")
    if len(config.rootfs.diff_ids) != layers:
        raise refused(f"it has {layers} layers and the checksums of {len(config.rootfs.diff_ids)}")
    for diff_id in config.rootfs.diff_ids:
        if not check_digest(diff_id, "layers").startswith("sha256:"):
            raise refused(f"the checksum of a layer is no SHA-256: {diff_id[:80]}")
    has = Platform(os=config.os, architecture=config.architecture, variant=config.variant)
    if config.os != wanted.os or config.architecture not in ("", wanted.architecture):
        raise refused(f"it is for {has}, and {wanted} was asked for", resolution="take one for that platform")
    said = config.config or Defaults()
    if sum(len(each) for each in said.env or ()) > MAX_ENV_BYTES or any("\0" in each for each in said.env or ()):
        raise refused("its environment is too large, or holds a NUL")
    return config


def parse_platform(text: str | None) -> Platform:
    """Read ``linux/arm64/v8`` or ``arm64``; nothing is this host's.

    Raises:
        InvalidInput: it is none, or not of Linux.
    """
    if text is None:
        machine = host.machine()
        return Platform(architecture=ARCHITECTURES.get(machine, machine))
    match = PLATFORM.fullmatch(text)
    if match is None or match[1] not in (None, "linux"):
        raise InvalidInput(
            "invalid platform",
            details=f"platform {text[:80]!r}",
            resolution="use one such as linux/amd64 or linux/arm64",
            field="platform",
        )
    return Platform(architecture=match[2], variant=match[3] or "")


def choose(manifests: Iterable[Descriptor], wanted: Platform) -> Descriptor:
    """Choose of an index: the platform that was asked for, the variant too where one was; the first of several.

    Raises:
        ImageRefused: there is none; the details list those there are.
    """
    all_of_them = [*manifests]
    fitting = [
        each
        for each in all_of_them
        if each.platform is not None
        and (each.platform.os, each.platform.architecture) == (wanted.os, wanted.architecture)
        and wanted.variant in ("", each.platform.variant)
    ]
    if fitting:
        return fitting[0]
    if len(all_of_them) == 1 and all_of_them[0].platform is None:
        return all_of_them[0]
    there = ", ".join(sorted({str(each.platform) for each in all_of_them if each.platform is not None})) or "none"
    raise refused(f"it is not there for {wanted}; there are: {there}", resolution="choose a platform that is there")
