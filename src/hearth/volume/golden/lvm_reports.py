"""What LVM says, as values: its JSON reports of volumes and groups, and its complaints in our words."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from hearth.errors import Conflict, HearthError, InvalidInput, NoSpace, NotFound
from hearth.host.process import CommandFailed
from hearth.volume.golden.base import NAME_FIELD, SIZE_FIELD

WRONG_ARGUMENTS = 3
"""lvm(8), "Exit status", as found; 5 is for all that failed, also for what is not there."""
VOLUME_FIELDS = (
    *("lv_name", "lv_uuid", "lv_size", "lv_attr", "lv_tags", "lv_path", "lv_device_open"),
    *("pool_lv", "origin", "data_percent", "metadata_percent", "chunk_size"),
)
GROUP_FIELDS = ("vg_name", "vg_size", "vg_free", "vg_extent_size")
UNKNOWN, OPEN, INACTIVE = "unknown", "open", "-"
NOT_PLAIN = frozenset("tTedDsSpilI")
"""Thin and VDO pools and their parts, snapshots that lie over a thick volume, what LVM moves and mirrors."""
TYPE_AT, STATE_AT, ZERO_AT, HEALTH_AT = 0, 4, 7, 8
"""Of ``lv_attr``: lvs(8), "Notes"."""


class LvmFailed(HearthError):
    """A command of LVM failed in a way that is not known; ``details`` hold what it said."""


@dataclass(frozen=True, kw_only=True)
class LogicalVolume:
    """A volume as LVM reports it; sizes in bytes, shares of a pool in percent, None where they do not apply.

    ``chunk_bytes`` is what a pool gives at once, ``is_open`` is None where the kernel could not be asked.
    """

    name: str
    uuid: str
    size_bytes: int
    attributes: str
    tags: frozenset[str]
    path: str
    is_open: bool | None
    pool: str
    origin: str
    data_percent: float | None
    metadata_percent: float | None
    chunk_bytes: int

    def tag(self, key: str) -> str:
        """Give the value of a tag ``key=value`` of ours, empty when there is none."""
        values = (tag.partition("=")[2] for tag in self.tags if tag.startswith(f"{key}="))
        return next(values, "")

    @property
    def is_thin_pool(self) -> bool:
        return self.attributes[TYPE_AT] == "t"

    @property
    def is_plain(self) -> bool:
        """Whether this holds a disk of its own: not a pool, nor a part or a copy-on-write snapshot of another one."""
        return self.attributes[TYPE_AT] not in NOT_PLAIN

    @property
    def zeroes_new_blocks(self) -> bool:
        """Whether a pool's blocks lose what they held before a volume gets them."""
        return self.attributes[ZERO_AT] == "z"

    @property
    def ailment(self) -> str:
        """What is wrong with a pool, in a letter: D has no data left, M no metadata, F failed; empty when well."""
        return self.attributes[HEALTH_AT].strip("-")

    @property
    def used_bytes(self) -> int:
        """What a pool has given away, or a thin volume got."""
        return int((self.data_percent or 0.0) / 100 * self.size_bytes)


@dataclass(frozen=True, kw_only=True)
class Group:
    """A volume group; sizes in bytes."""

    name: str
    size_bytes: int
    free_bytes: int
    extent_bytes: int

    def rounded(self, size_bytes: int) -> int:
        """Give the size that a volume of so many bytes will have."""
        return -(-size_bytes // self.extent_bytes) * self.extent_bytes


def parse_volumes(report: bytes) -> list[LogicalVolume]:
    """Read what ``volume_words`` prints.

    Raises:
        LvmFailed: it is no such report.
    """
    return [
        LogicalVolume(
            name=row["lv_name"],
            uuid=row["lv_uuid"],
            size_bytes=int(row["lv_size"]),
            attributes=row["lv_attr"].ljust(HEALTH_AT + 1, "-"),
            tags=frozenset(row["lv_tags"].split(",")) - {""},
            path=row["lv_path"],
            is_open=_is_open(row),
            pool=row["pool_lv"],
            origin=row["origin"],
            data_percent=_percent(row["data_percent"]),
            metadata_percent=_percent(row["metadata_percent"]),
            chunk_bytes=int(row["chunk_size"] or 0),
        )
        for row in _rows(report, "lv", VOLUME_FIELDS)
    ]


def dependents(name: str, volumes: Collection[LogicalVolume]) -> list[str]:
    """Give the volumes that would be lost with one: LVM removes them with it.

    Thin snapshots of a thin volume are none of them.
    """
    pools = {volume.name: volume.pool for volume in volumes}
    found = (each for each in volumes if each.origin == name)
    return sorted(each.name for each in found if not each.pool or each.pool != pools.get(name))


def parse_groups(report: bytes) -> list[Group]:
    """Read what ``group_words`` prints.

    Raises:
        LvmFailed: it is no such report.
    """
    return [
        Group(
            name=row["vg_name"],
            size_bytes=int(row["vg_size"]),
            free_bytes=int(row["vg_free"]),
            extent_bytes=int(row["vg_extent_size"]),
        )
        for row in _rows(report, "vg", GROUP_FIELDS)
    ]


def translate(error: CommandFailed) -> HearthError:
    """Tell in our words what LVM said in its own; what is not known stays as it is."""
    said = " ".join(line.strip() for line in error.output.splitlines() if "WARNING:" not in line)[-400:]
    if re.search(r"insufficient free space|insufficient suitable|not enough free|out of (data )?space", said, re.I):
        return NoSpace("the volume group is full", details=said, resolution="delete volumes or add disks")
    if re.search(r"reached threshold|read.only metadata", said, re.I):
        return NoSpace(
            "the thin pool is full, or nearly so",
            details=said,
            resolution="delete volumes, or extend the pool: lvextend, lvextend --poolmetadatasize; see lvmthin(7)",
        )
    if "already exists" in said:
        return Conflict("there is such a volume", details=said, resolution="choose another name", field=NAME_FIELD)
    if re.search(r"failed to find|not found|cannot process volume group", said, re.I):
        return NotFound("no such volume or group", details=said, resolution="list the volumes", field=NAME_FIELD)
    if re.search(r"in use|is used by", said, re.I):
        return Conflict("the volume is in use", details=said, resolution="end whoever uses it", field=NAME_FIELD)
    if error.status == WRONG_ARGUMENTS and "size" in said.lower():
        return InvalidInput("the volume's size is refused", details=said, field=SIZE_FIELD)
    return LvmFailed("LVM failed", details=f"status {error.status}: {said}", resolution="look at the volume group")


def _rows(report: bytes, kind: str, fields: Sequence[str]) -> list[dict[str, str]]:
    try:
        found = msgspec.json.decode(report, type=dict[str, list[dict[str, list[dict[str, str]]]]])
        rows = [row for part in found["report"] for row in part.get(kind, [])]
        missing = {name for row in rows for name in fields if name not in row}
    except (msgspec.DecodeError, KeyError) as error:
        raise LvmFailed("LVM's report cannot be read", details=str(error)) from error
    if missing:
        raise LvmFailed("LVM's report cannot be read", details=f"it lacks {', '.join(sorted(missing))}")
    return rows


def _is_open(row: dict[str, str]) -> bool | None:
    if row["lv_device_open"] != UNKNOWN:
        return row["lv_device_open"] == OPEN
    return False if row["lv_attr"][STATE_AT : STATE_AT + 1] == INACTIVE else None


def _percent(text: str) -> float | None:
    return float(text) if text else None
