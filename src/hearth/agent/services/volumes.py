"""VOLUMES: what is mounted of the disks that the host puts into and takes out of a running machine."""

from __future__ import annotations

from collections.abc import Callable

from hearth.agent.connection import Connection
from hearth.agent.refusal import refused
from hearth.agent.state import Agent
from hearth.agent.volumes import settle_volumes
from hearth.wire.faults import Fault
from hearth.wire.frames import FrameType
from hearth.wire.messages import Status, VolumesRequest, decode


class VolumesService:
    """Mounts and unmounts in a machine of our own; in test mode the mounts are the host's."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def handlers(self) -> dict[int, Callable[[Connection, bytes], None]]:
        """Give the requests this service answers."""
        return {FrameType.VOLUMES_REQ: self.settle}

    def settle(self, connection: Connection, payload: bytes) -> None:
        """Have exactly the volumes of the request mounted."""
        request = decode(VolumesRequest, payload)
        if not self._agent.in_machine:
            raise refused(Fault.DENIED, "this agent does not run a machine of its own, it mounts nothing")
        settle_volumes(self._agent, request.volumes)
        connection.send_message(FrameType.VOLUMES_RESP, Status(status="ok"))
