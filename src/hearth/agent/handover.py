"""What an agent leaves behind should it die: the process groups it ran, for init to end, and its configuration.

Both stand in memory files that init opens before it forks the first agent. Nothing of it is ever on a disk.
"""

from __future__ import annotations

import os
import struct
import threading

from hearth.agent.spawn import end_group

_GROUP = struct.Struct("=I")
_LENGTH = struct.Struct("=I")
_UNSETTLED = 1 << 31
"""Set in the length of the configuration while another one is being carried out, and after that has failed."""


class Handover:
    """Made by init; used by one agent at a time, which calls the methods from any thread."""

    def __init__(self) -> None:
        self._groups = os.memfd_create("hearth-groups")
        self._configuration = os.memfd_create("hearth-configuration")
        self._lock = threading.Lock()
        self._slots: dict[int, int] = {}
        self._free: list[int] = []

    def add_group(self, pid: int) -> None:
        """Note a process group that has to end with the agent."""
        with self._lock:
            slot = self._slots[pid] = self._free.pop() if self._free else len(self._slots)
            os.pwrite(self._groups, _GROUP.pack(pid), slot * _GROUP.size)

    def remove_group(self, pid: int) -> None:
        """Forget a group, before its leader is reaped."""
        with self._lock:
            slot = self._slots.pop(pid, None)
            if slot is not None:
                self._free.append(slot)
                os.pwrite(self._groups, _GROUP.pack(0), slot * _GROUP.size)

    def end_groups(self) -> int:
        """Kill the groups that a dead agent has left and forget them; gives how many there were.

        For init, as soon as the agent has ended: the leaders are init's children then, and their numbers still theirs.
        """
        size = os.fstat(self._groups).st_size
        left = [pid for (pid,) in _GROUP.iter_unpack(os.pread(self._groups, size, 0)) if pid]
        for pid in left:
            end_group(pid)
        os.ftruncate(self._groups, 0)
        return len(left)

    def close(self) -> None:
        """Let go of both files."""
        os.close(self._groups)
        os.close(self._configuration)

    def keep_configuration(self, payload: bytes) -> None:
        """Keep the CONFIGURE payload in force, in place of any other."""
        # Dying in between leaves none rather than half of one.
        os.pwrite(self._configuration, _LENGTH.pack(_UNSETTLED), 0)
        os.pwrite(self._configuration, payload, _LENGTH.size)
        os.pwrite(self._configuration, _LENGTH.pack(len(payload)), 0)

    def unsettle(self) -> None:
        """Note that the machine is about to become another one, until ``keep_configuration`` says who it is."""
        os.pwrite(self._configuration, _LENGTH.pack(self._header() | _UNSETTLED), 0)

    def is_settled(self) -> bool:
        """False when an agent died, or failed, half-way through a configuration."""
        return not self._header() & _UNSETTLED

    def configuration(self) -> bytes | None:
        """Give the payload that was in force when the last agent died, None if it had none."""
        length = self._header() & ~_UNSETTLED
        return os.pread(self._configuration, length, _LENGTH.size) if length else None

    def _header(self) -> int:
        header = os.pread(self._configuration, _LENGTH.size, 0)
        return int(_LENGTH.unpack(header)[0]) if header else 0
