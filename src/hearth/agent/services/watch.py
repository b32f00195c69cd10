"""WATCH: changes of a file or tree, told until the client goes away."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from hearth.agent.connection import PROBE_INTERVAL_S, Connection, PeerGone
from hearth.agent.files.inotify import Watcher
from hearth.agent.moments import poll_timeout_ms
from hearth.wire.frames import FrameType
from hearth.wire.messages import Status, WatchRequest, decode

_GONE = select.POLLHUP | select.POLLERR | select.POLLNVAL


class WatchService:
    """Tells changes. Watching is no activity of the sandbox; what changes the files is."""

    def handlers(self) -> dict[int, Callable[[Connection, bytes], None]]:
        """Give the requests this service answers."""
        return {FrameType.WATCH_REQ: self.watch}

    def watch(self, connection: Connection, payload: bytes) -> None:
        """Arm the watch, say so, and tell every change; ends when the watched path itself is gone."""
        request = decode(WatchRequest, payload)
        watcher = Watcher(request.path, recursive=request.recursive)
        try:
            connection.send_message(FrameType.WATCH_RESP, Status(status="ok"))
            self._tell(connection, watcher)
        finally:
            watcher.close()

    def _tell(self, connection: Connection, watcher: Watcher) -> None:
        poller = select.poll()
        poller.register(connection, select.POLLIN)
        poller.register(watcher, select.POLLIN)
        probe_at: float | None = None
        gone = False
        while not gone:
            ready = dict(poller.poll(poll_timeout_ms(time.monotonic(), probe_at)))
            if (event := ready.get(connection.fileno(), 0)) & _GONE:
                raise PeerGone("client closed")
            if event and not connection.fill():
                if not connection.is_tcp:
                    return
                poller.modify(connection, 0)
                probe_at = 0.0
            while connection.next_frame() is not None:
                continue
            if probe_at is not None and time.monotonic() >= probe_at:
                probe_at = time.monotonic() + PROBE_INTERVAL_S
                connection.probe()
            if watcher.fileno() in ready:
                events, gone = watcher.read()
                for change in events:
                    connection.send_message(FrameType.WATCH_EVENT, change)
