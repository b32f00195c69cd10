"""Collects processes that no connection waits for: one thread for all detached ones, started with the first."""

from __future__ import annotations

import os
import select
import threading
import time

from hearth.agent.exit_watch import ExitWatch, watch_child
from hearth.agent.moments import poll_timeout_ms
from hearth.agent.spawn import end_group
from hearth.agent.state import Agent


class Reaper:
    """Owns detached processes from their start to their end, time limit included."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._lock = threading.Lock()
        self._adopted: list[tuple[int, ExitWatch, float | None]] = []
        self._woken, self._wake = os.pipe()
        self._running = False

    def adopt(self, pid: int, timeout_s: float | None) -> None:
        """Take over a running child; its group is killed after ``timeout_s``.

        Raises:
            StartFailed: it cannot be watched, and has been ended.
        """
        kill_at = None if timeout_s is None else time.monotonic() + timeout_s
        watch = watch_child(pid)
        self._agent.add_group(pid, is_job=True)
        with self._lock:
            self._adopted.append((pid, watch, kill_at))
            if not self._running:
                self._running = True
                threading.Thread(target=self._work, name="reaper", daemon=True).start()
        os.write(self._wake, b"\0")

    def _work(self) -> None:
        poller = select.poll()
        poller.register(self._woken, select.POLLIN)
        watched: dict[int, tuple[int, ExitWatch]] = {}
        limits: dict[int, float] = {}
        while True:
            now = time.monotonic()
            for pid in [pid for pid, at in limits.items() if at <= now]:
                del limits[pid]
                end_group(pid)
            for descriptor, _ in poller.poll(poll_timeout_ms(now, *limits.values())):
                if descriptor == self._woken:
                    os.read(self._woken, 4096)
                    for pid, watch, kill_at in self._take_adopted():
                        watched[watch.fileno()] = (pid, watch)
                        poller.register(watch.fileno(), select.POLLIN)
                        if kill_at is not None:
                            limits[pid] = kill_at
                else:
                    poller.unregister(descriptor)
                    pid, watch = watched.pop(descriptor)
                    limits.pop(pid, None)
                    self._agent.remove_group(pid)
                    watch.collect()

    def _take_adopted(self) -> list[tuple[int, ExitWatch, float | None]]:
        with self._lock:
            adopted, self._adopted = self._adopted, []
        return adopted
