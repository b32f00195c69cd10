"""inotify(7): watches on a tree, and its raw events as changes with whole paths."""

from __future__ import annotations

import contextlib
import os
import select
import stat
import struct

from hearth.agent import syscalls
from hearth.wire.messages import WatchEvent

_EVENT = struct.Struct("iIII")
_MODIFY = 0x2
_ATTRIB = 0x4
_MOVED_FROM = 0x40
_MOVED_TO = 0x80
_CREATE = 0x100
_DELETE = 0x200
_DELETE_SELF = 0x400
_MOVE_SELF = 0x800
_UNMOUNT = 0x2000
_OVERFLOW = 0x4000
_IGNORED = 0x8000
_DONT_FOLLOW = 0x2000000
_IS_DIR = 0x40000000
_MASK = _MODIFY | _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
_READ_BYTES = 65_536
_OTHER_HALF_TIMEOUT_S = 0.1
"""A move is two events, and a reader may come between them (inotify(7)); the second of a move elsewhere never comes."""


class Watcher:
    """Changes of one path, with ``recursive`` of all directories below it, those made later included.

    Raises:
        OSError: the path is not there, or the system has no more watches, or no inotify.
    """

    def __init__(self, path: str, *, recursive: bool) -> None:
        self._path = path
        self._recursive = recursive
        self._paths: dict[int, str] = {}
        self._descriptor = syscalls.inotify_init()
        try:
            self._is_directory = stat.S_ISDIR(os.stat(path).st_mode)
            self._watch(path, 0)
            if recursive and self._is_directory:
                self._watch_below(path)
        except BaseException:
            os.close(self._descriptor)
            raise

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        """End all watches."""
        os.close(self._descriptor)

    def read(self) -> tuple[list[WatchEvent], bool]:
        """Give the changes there are now, without waiting, and whether the watched path itself is gone."""
        data = self._take()
        events: list[WatchEvent] = []
        moved: tuple[int, str, bool] | None = None
        gone = False
        at = 0
        while at < len(data):
            watch, mask, cookie, length = _EVENT.unpack_from(data, at)
            if mask & _MOVED_FROM and at + _EVENT.size + length == len(data):
                data += self._take(_OTHER_HALF_TIMEOUT_S)
            name = os.fsdecode(data[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0"))
            at += _EVENT.size + length
            if moved is not None and not (mask & _MOVED_TO and cookie == moved[0]):
                events.append(WatchEvent(kind="removed", path=moved[1], is_dir=moved[2]))
                moved = None
            if mask & _OVERFLOW:
                events.append(WatchEvent(kind="overflow", path=self._path))
                continue
            base = self._paths.get(watch)
            if base is None:
                continue
            if mask & (_IGNORED | _UNMOUNT):
                del self._paths[watch]
                gone = gone or base == self._path
                continue
            path, is_dir = os.path.join(base, name) if name else base, bool(mask & _IS_DIR)
            if mask & _MOVED_FROM:
                moved = cookie, path, is_dir
            elif mask & _MOVED_TO and moved is not None:
                events.append(WatchEvent(kind="moved", path=moved[1], to=path, is_dir=is_dir))
                self._rename(moved[1], path)
                moved = None
            else:
                events += self._single(mask, path, base, is_dir)
        if moved is not None:
            events.append(WatchEvent(kind="removed", path=moved[1], is_dir=moved[2]))
        return events, gone

    def _take(self, timeout_s: float = 0.0) -> bytes:
        """Read raw events, waiting for the first of them if told to."""
        if timeout_s:
            poller = select.poll()
            poller.register(self, select.POLLIN)
            poller.poll(timeout_s * 1000)
        try:
            return os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return b""

    def _single(self, mask: int, path: str, base: str, is_dir: bool) -> list[WatchEvent]:
        if mask & (_CREATE | _MOVED_TO):
            found = [WatchEvent(kind="created", path=path, is_dir=is_dir)]
            if is_dir and self._recursive:
                found += self._new_directory(path)
            return found
        if mask & _DELETE:
            return [WatchEvent(kind="removed", path=path, is_dir=is_dir)]
        if mask & (_DELETE_SELF | _MOVE_SELF):
            return [WatchEvent(kind="removed", path=path, is_dir=self._is_directory)] if base == self._path else []
        return [WatchEvent(kind="modified", path=path, is_dir=is_dir)]

    def _new_directory(self, path: str) -> list[WatchEvent]:
        """Watch a directory that has just appeared, and tell what was put into it before the watch stood."""
        events: list[WatchEvent] = []
        with contextlib.suppress(OSError):
            self._watch(path, _DONT_FOLLOW)
            for entry in os.scandir(path):
                is_dir = entry.is_dir(follow_symlinks=False)
                events.append(WatchEvent(kind="created", path=entry.path, is_dir=is_dir))
                if is_dir:
                    events += self._new_directory(entry.path)
        return events

    def _watch(self, path: str, flags: int) -> None:
        self._paths[syscalls.inotify_add_watch(self._descriptor, path, _MASK | flags)] = path

    def _watch_below(self, path: str) -> None:
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):
                    self._watch(entry.path, _DONT_FOLLOW)
                    self._watch_below(entry.path)

    def _rename(self, old: str, new: str) -> None:
        for watch, path in self._paths.items():
            if path == old or path.startswith(f"{old}/"):
                self._paths[watch] = new + path[len(old) :]
