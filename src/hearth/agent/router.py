"""First frame → service. The list of services stands here and nowhere else."""

from __future__ import annotations

import time
from _operator import _compare_digest as compare_digest  # ``hmac`` gives the same one and loads all of OpenSSL
from collections.abc import Callable, Mapping

from hearth.agent.connection import Connection, PeerGone
from hearth.agent.kept_table import KeptTable
from hearth.agent.kernel_log import KernelLog
from hearth.agent.refusal import Refused, refusal_of_os
from hearth.agent.seal import describe, say
from hearth.agent.services.archives import ArchiveService
from hearth.agent.services.configure import ConfigureService
from hearth.agent.services.exec import ExecService
from hearth.agent.services.files import FileService
from hearth.agent.services.forward import ForwardService
from hearth.agent.services.freeze import FreezeService
from hearth.agent.services.last_words import LastWordsService
from hearth.agent.services.ports import PortService
from hearth.agent.services.sessions import SessionService
from hearth.agent.services.system import SystemService
from hearth.agent.services.volumes import VolumesService
from hearth.agent.services.watch import WatchService
from hearth.agent.session_table import SessionTable
from hearth.agent.spawn import StartFailed
from hearth.agent.state import Agent
from hearth.agent.time_sync import apply_time
from hearth.wire.faults import UNEXPECTED_FRAME, Fault, write_fault
from hearth.wire.frames import Frame, FrameType, WireError, parse_time_sync
from hearth.wire.messages import BadMessage

Handler = Callable[[Connection, bytes], None]


def control_handlers(
    agent: Agent, table: SessionTable, kept: KeptTable, configuration: ConfigureService
) -> dict[int, Handler]:
    """Give the handlers of the control port by request type."""
    sessions = SessionService(table)
    services = (
        ExecService(agent, sessions, kept),
        sessions,
        FileService(agent),
        ArchiveService(agent),
        WatchService(),
        PortService(agent),
        SystemService(agent, table),
        FreezeService(agent.freezer),
        VolumesService(agent),
        LastWordsService(None if agent.doors.log is None else KernelLog(agent.doors.log)),
        configuration,
    )
    return {frame_type: handler for service in services for frame_type, handler in service.handlers().items()}


def forward_handlers(agent: Agent) -> dict[int, Handler]:
    """Give the handlers of the forward port by request type."""
    return dict(ForwardService(agent).handlers())


class Router:
    """Runs one connection: authentication, one request, its service, and the translation of what went wrong."""

    def __init__(self, agent: Agent, handlers: Mapping[int, Handler]) -> None:
        self._agent = agent
        self._handlers = handlers

    def serve(self, connection: Connection) -> None:
        """Serve a connection to its end; never raises for what a peer or the OS did."""
        try:
            self._answer(connection)
        except PeerGone:
            return
        except Exception as error:  # noqa: BLE001 -- a connection ends here; one broken request must not end the agent
            say(f"hearth: internal error: {describe(error)}")

    def _answer(self, connection: Connection) -> None:
        try:
            request = self._authenticated_request(connection)
            if request is not None:
                self._dispatch(connection, request)
        except (Refused, StartFailed) as error:
            connection.send_error(str(error))
        except BadMessage as error:
            connection.send_error(write_fault(Fault.INVALID, str(error)))
        except WireError as error:
            connection.send_error(write_fault(Fault.PROTOCOL, str(error)))
        except OSError as error:
            connection.send_error(str(refusal_of_os(error)))
        except PeerGone:
            raise
        except RecursionError:
            connection.send_error(write_fault(Fault.TOO_LARGE, "the tree is nested too deep"))
        except Exception as error:
            connection.send_error(write_fault(Fault.INTERNAL, type(error).__name__))
            raise

    def _authenticated_request(self, connection: Connection) -> Frame | None:
        token, patience = self._agent.token, self._agent.patience
        started = time.monotonic()
        if token is not None:
            try:
                first = connection.read_frame(started + patience.auth_s)
            except (TimeoutError, WireError) as error:
                raise Refused("auth required") from error
            if first is None:
                return None
            if first.type != FrameType.AUTH or not compare_digest(first.payload, token):
                raise Refused("auth required")
        try:
            request = connection.read_frame(started + patience.request_s)
            if request is not None and request.type == FrameType.TIME_SYNC:
                apply_time(self._agent, parse_time_sync(request.payload))
                request = connection.read_frame(started + patience.request_s)
        except TimeoutError as error:
            raise Refused(write_fault(Fault.PROTOCOL, f"no request within {patience.request_s:g} s")) from error
        if self._agent.token != token:  # the machine became another one while this connection waited
            raise Refused("auth required")
        return request

    def _dispatch(self, connection: Connection, request: Frame) -> None:
        handler = self._handlers.get(request.type)
        if handler is None:
            raise Refused(f"{UNEXPECTED_FRAME} 0x{request.type:02x}")
        self._agent.gate.check(request.type)
        handler(connection, request.payload)
