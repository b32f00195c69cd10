"""What is said to the program that unpacks, and what it says."""

from __future__ import annotations

import msgspec

from hearth.image.oci.documents import Defaults


class UnpackOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Fill the empty directory ``tree``.

    Args:
        layers: the files of layers, the lowest first, whose uncompressed checksums are ``diff_ids``.
        archive: instead of layers a tar archive, which is an image or a file system.
        directories: what must be there in the end, with their modes.
        max_bytes: what comes out of all layers together, and what one file may have.
    """

    tree: str
    layers: list[str] = []
    diff_ids: list[str] = []
    archive: str | None = None
    architecture: str = ""
    variant: str = ""
    working_dir: str = ""
    directories: dict[str, int] = {}
    max_bytes: int
    max_entries: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True, tag="outcome"):
    """The tree is there: so many names, so many bytes in files.

    ``defaults`` are what the image in an archive says of programs; a plain file system says nothing.
    """

    names: int
    data_bytes: int
    lost_xattrs: int
    defaults: Defaults
    is_image: bool


class Problem(msgspec.Struct, frozen=True, kw_only=True, tag="problem"):
    """It cannot be used, in the words of the error."""

    brief: str
    details: str = ""
    resolution: str = ""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is: bytes read of a stage's total."""

    stage: str
    done: int
    total: int
