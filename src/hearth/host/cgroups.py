"""One control group per machine where one is to be had: version 2 where its controllers are ours to give out, else the
version 1 hierarchies, else none, with the reason.

Version 2 groups go below the group that an operator named, else below our own when it was delegated to us (systemd's
``Delegate=yes``): what lies elsewhere is then the manager's business. Otherwise, and with version 1, they go below the
top, where any later daemon finds them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from hearth.errors import Conflict, HostUnfit
from hearth.model import check_name

log = structlog.get_logger(__name__)

CONTROLLERS = ("cpu", "memory", "pids")
NEEDED_V2 = frozenset({"memory", "pids"})
DEFAULT_WEIGHT = 100
"""cpu.weight of a group that says nothing (cgroup-v2.rst)."""
DEFAULT_SHARES = 1024
"""cpu.shares of a group that says nothing (sched-design-CFS.rst)."""
KEEPER = "keeper"
REMOVE_TRIES = 20
REMOVE_PAUSE_S = 0.005


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One line of /proc/self/mountinfo, as far as control groups need it."""

    point: Path
    kind: str
    options: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where groups are made: for each controller the directory under which our own parent group goes.

    ``version`` is 0 when there is none, and ``reason`` says why or how; with version 2 all directories are one.
    """

    version: int
    bases: Mapping[str, Path]
    reason: str


@dataclass(frozen=True, kw_only=True)
class Cgroup:
    """The group of one machine: one directory with version 2, one for each controller with version 1."""

    name: str
    directories: tuple[Path, ...]

    def add(self, pid: int) -> None:
        """Move a process with all its threads in; memory it has already touched stays charged where it was."""
        for directory in self.directories:
            with contextlib.suppress(ProcessLookupError):  # ended meanwhile: whoever waits for it will tell
                (directory / "cgroup.procs").write_text(str(pid))


class Cgroups:
    """The groups of all machines of one daemon; everything is found again by name in a fresh process.

    Args:
        tag: marks the daemon's groups among others on this host (``directory.load_tag``).
        layout: as ``detect`` found it.
    """

    def __init__(self, tag: str, layout: Layout) -> None:
        self.tag = tag
        self.layout = layout
        self._parents = {name: base / f"hearth-{tag}" for name, base in layout.bases.items()}

    def create(
        self, name: str, *, memory_max_bytes: int, pids_max: int, cpu_weight: int = DEFAULT_WEIGHT
    ) -> Cgroup | None:
        """Make or adjust the group ``name``; None where this host has none to give (see ``layout.reason``).

        Args:
            name: a DNS label.
            memory_max_bytes: the kernel kills inside the group when it would need more.
            pids_max: threads and processes together.
            cpu_weight: share of a busy CPU, 1 to 10 000; 100 is everybody's.

        Raises:
            OSError: the kernel refused a limit; the group is removed again.
        """
        check_name(name, what="cgroup")
        if not self._parents:
            return None
        values = limits(self.layout.version, memory_max_bytes, pids_max, cpu_weight)
        try:
            for controller, parent in self._parents.items():
                self._prepare(parent)
                (parent / name).mkdir(exist_ok=True)
                file, value = values[controller]
                (parent / name / file).write_text(value)
        except OSError:
            self.remove(name)
            raise
        return Cgroup(name=name, directories=self._directories(name))

    def remove(self, name: str) -> None:
        """Remove the group ``name``, or what there is of it; a missing one is fine. Blocking, mostly for 0.1 ms.

        Raises:
            Conflict: processes still live in it.
        """
        check_name(name, what="cgroup")
        for directory in self._directories(name):
            _remove_directory(directory)
        for parent in set(self._parents.values()):
            with contextlib.suppress(OSError):  # others are in there, or it is gone
                parent.rmdir()

    def members(self, name: str) -> set[int]:
        """Tell the processes in the group ``name``; none when there is no such group."""
        found: set[int] = set()
        for directory in self._directories(name):
            with contextlib.suppress(OSError):
                found |= {int(pid) for pid in (directory / "cgroup.procs").read_text().split()}
        return found

    def memory_limit_hits(self, name: str) -> tuple[int, int]:
        """Tell how many processes of a group the kernel killed for memory, and how often it reached its limit.

        Zeros where there is no such group. Sources: cgroup-v2.rst (memory.events), cgroup-v1/memory.rst.
        """
        kills = hits = 0
        for directory in self._directories(name):
            for file in ("memory.events", "memory.oom_control", "memory.failcnt"):
                with contextlib.suppress(OSError):
                    words = (directory / file).read_text().split()
                    values = dict(zip(words[::2], words[1::2], strict=False))
                    kills += int(values.get("oom_kill", "0"))
                    hits += int(words[0]) if file == "memory.failcnt" else int(values.get("max", "0"))
        return kills, hits

    def list(self) -> set[str]:
        """Tell the names of all groups of this daemon, half-made ones included."""
        names: set[str] = set()
        for parent in set(self._parents.values()):
            with contextlib.suppress(FileNotFoundError):
                names |= {path.name for path in parent.iterdir() if path.is_dir()}
        return names

    def _directories(self, name: str) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(parent / name for parent in self._parents.values()))

    def _prepare(self, parent: Path) -> None:
        parent.mkdir(exist_ok=True)
        if self.layout.version == 2:
            _hand_down(parent, self._parents)


def detect(tag: str, home: str | None = None) -> Cgroups:
    """Find out what this process may do with control groups on this host.

    Args:
        home: the version 2 group to make ours in, from its hierarchy's top; hosts without version 2 do without it.

    Raises:
        HostUnfit: there is no such group.
    """
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"))
    own = own_path(Path("/proc/self/cgroup").read_text("utf-8", "surrogateescape"))
    layout = detect_v2(mounts, own, home) or _detect_v1(mounts) or _none(mounts)
    log.debug("control groups", version=layout.version, reason=layout.reason)
    return Cgroups(tag, layout)


def parse_mounts(mountinfo: str) -> list[Mount]:
    """Give the control group mounts in the text of /proc/self/mountinfo (proc_pid_mountinfo(5))."""
    mounts = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            mounts.append(Mount(point=Path(before.split(" ")[4]), kind=kind, options=frozenset(options.split(","))))
    return mounts


def own_path(cgroup_text: str) -> str:
    """Give this process's version 2 group from the text of /proc/self/cgroup (cgroups(7)); "/" where none is told."""
    for line in cgroup_text.splitlines():
        if line.startswith("0::"):
            return line[3:]
    return "/"


def limits(version: int, memory_max_bytes: int, pids_max: int, cpu_weight: int) -> dict[str, tuple[str, str]]:
    """Give for each controller the file to write and its text."""
    if version == 2:
        return {
            "cpu": ("cpu.weight", str(cpu_weight)),
            "memory": ("memory.max", str(memory_max_bytes)),
            "pids": ("pids.max", str(pids_max)),
        }
    return {
        "cpu": ("cpu.shares", str(max(2, cpu_weight * DEFAULT_SHARES // DEFAULT_WEIGHT))),
        "memory": ("memory.limit_in_bytes", str(memory_max_bytes)),
        "pids": ("pids.max", str(pids_max)),
    }


def detect_v2(mounts: Sequence[Mount], own_group: str, home: str | None = None) -> Layout | None:
    """Find the version 2 group to put ours in and have it hand its controllers down; None when that cannot be.

    Where the daemon's own group was delegated to it, the daemon moves into a leaf of it.

    Raises:
        HostUnfit: ``home`` is none that could be used, though this host has version 2.
    """
    top = next((mount.point for mount in mounts if mount.kind == "cgroup2"), None)
    if top is None:
        return None
    own = top / own_group.lstrip("/")
    if home is not None and _offered(top) >= NEEDED_V2:
        return _at_home(top, home)
    delegated = _delegated_above(own, top)
    base = delegated or top
    try:
        offered = _offered(base)
        if not offered >= NEEDED_V2 or not os.access(base, os.W_OK):
            return None
        if own == delegated:
            _step_aside(own)
        _hand_down(base, sorted(offered & set(CONTROLLERS)))
    except OSError as error:
        log.debug("control groups version 2 are not ours", base=str(base), error=str(error))
        return None
    whose = "delegated to us" if delegated else "of this host"
    bases = dict.fromkeys(sorted(offered & set(CONTROLLERS)), base)
    return Layout(version=2, bases=bases, reason=f"version 2, {whose}, at {base}")


def _at_home(top: Path, home: str) -> Layout:
    """Use the group that an operator named: one that outlives the daemon's own.

    The process that keeps it alive moves into a leaf of it: a group with processes cannot hand controllers on.
    """
    base = top / home.strip("/")
    try:
        inside = ".." not in base.parts and base != top
        offered = _offered(base) & set(CONTROLLERS)
        if not inside or not offered >= NEEDED_V2:
            wanted = ", ".join(sorted(NEEDED_V2 - offered)) or "a path below the top"
            raise HostUnfit(
                "the control group for machines cannot be used",
                details=f"machines_cgroup {home!r} lacks {wanted}",
                resolution="start it with 'systemctl start hearth-machines', or leave machines_cgroup out",
                field="machines_cgroup",
            )
        for pid in (base / "cgroup.procs").read_text().split():
            (base / KEEPER).mkdir(exist_ok=True)
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                (base / KEEPER / "cgroup.procs").write_text(pid)
        _hand_down(base, sorted(offered))
    except OSError as error:
        raise HostUnfit(
            "the control group for machines cannot be used",
            details=f"machines_cgroup {home!r}: {error.strerror}",
            resolution="let systemd delegate it, as hearth-machines.service does, or leave machines_cgroup out",
            field="machines_cgroup",
        ) from error
    return Layout(version=2, bases=dict.fromkeys(sorted(offered), base), reason=f"version 2, as configured, at {base}")


def _offered(directory: Path) -> set[str]:
    """Tell which controllers a group may hand down; none where there is no such group."""
    try:
        return set((directory / "cgroup.controllers").read_text().split())
    except OSError:
        return set()


def _detect_v1(mounts: Sequence[Mount]) -> Layout | None:
    bases = {
        controller: mount.point
        for controller in CONTROLLERS
        for mount in mounts
        if mount.kind == "cgroup" and controller in mount.options and os.access(mount.point, os.W_OK)
    }
    if not bases:
        return None
    return Layout(version=1, bases=bases, reason=f"version 1 with {', '.join(bases)}")


def _none(mounts: Sequence[Mount]) -> Layout:
    reason = "no control groups are mounted" if not mounts else "no control group with controllers is writable"
    return Layout(version=0, bases={}, reason=reason)


def _delegated_above(own: Path, top: Path) -> Path | None:
    """Give our group, or the nearest above it, that systemd marked as given away ("Control Group Delegation").

    It is one above once we have stepped aside.
    """
    for directory in (own, *own.parents):
        if directory == top or not directory.is_relative_to(top):
            return None
        for attribute in ("user.delegate", "trusted.delegate"):
            with contextlib.suppress(OSError):
                if os.getxattr(directory, attribute) == b"1":
                    return directory
    return None


def _step_aside(own: Path) -> None:
    """Move this process one group down: a group with processes cannot hand controllers on (cgroup-v2.rst)."""
    aside = own / "daemon"
    aside.mkdir(exist_ok=True)
    (aside / "cgroup.procs").write_text(str(os.getpid()))


def _hand_down(directory: Path, controllers: Mapping[str, Path] | Sequence[str]) -> None:
    wanted = " ".join(f"+{name}" for name in controllers)
    (directory / "cgroup.subtree_control").write_text(wanted)


def _remove_directory(directory: Path) -> None:
    """Remove one group; the last process may still be leaving when its parent has already heard of its end."""
    for _ in range(REMOVE_TRIES):
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(REMOVE_PAUSE_S)
        else:
            return
    raise Conflict("the control group still has processes", details=str(directory), resolution="end the VMM first")
