"""Requests about the machine as a whole: CONFIGURE, ACTIVITY, POWER_OFF."""

from __future__ import annotations

import binascii
import os
import socket
import threading
import time
from collections.abc import Callable

from hearth.agent import identity, syscalls
from hearth.agent.bringup.mounts import wait_for_device
from hearth.agent.bringup.network import NAME, configure
from hearth.agent.bringup.plan import BadPlan, read_interface
from hearth.agent.bringup.supervise import POWER_OFF_SIGNAL
from hearth.agent.connection import Connection
from hearth.agent.files.paths import make_parents, parse_mode
from hearth.agent.files.writing import AtomicWrite
from hearth.agent.init_script import InitScript, check_policy
from hearth.agent.procfs import session_ticks
from hearth.agent.refusal import refused
from hearth.agent.session_table import INIT_SESSION, SessionTable
from hearth.agent.state import Agent
from hearth.wire.faults import Fault
from hearth.wire.frames import FrameType
from hearth.wire.messages import ActivityInfo, MachineConfig, Status, VolumeMount, decode

_BUSY_SHARE = 0.05
"""A session that used more of a processor than this since the last look is at work, though it says nothing."""
_OK = Status(status="ok")


class SystemService:
    """Knows the machine; in test mode it keeps to token, environment, user and files."""

    def __init__(self, agent: Agent, table: SessionTable) -> None:
        self._agent = agent
        self._table = table
        self._lock = threading.Lock()
        self._ticks: tuple[float, int] | None = None

    def handlers(self) -> dict[int, Callable[[Connection, bytes], None]]:
        """Give the requests this service answers."""
        return {
            FrameType.CONFIGURE: self.configure,
            FrameType.ACTIVITY_REQ: self.activity,
            FrameType.POWER_OFF_REQ: self.power_off,
        }

    def configure(self, connection: Connection, payload: bytes) -> None:
        """Give the machine its identity. Everything may be done again, which is what happens after every restore."""
        config = decode(MachineConfig, payload)
        contents = {path: (_decode(path, file.content), parse_mode(file.mode)) for path, file in config.files.items()}
        check_policy(config)
        with self._lock:
            if self._agent.in_machine:
                self._identify(config)
            for path, (content, mode) in contents.items():
                self._put(path, content, mode)
            if self._agent.in_machine:
                for volume in config.volumes:
                    self._mount(volume)
            if self._agent.handover is not None:
                self._agent.handover.keep_configuration(payload)
            self._apply(config)
        connection.send_message(FrameType.CONFIGURED, _OK)

    def resume(self) -> None:
        """Go on as the agent before this one was configured, if it died; what it ran has been ended, so start init."""
        kept = self._agent.handover.configuration() if self._agent.handover is not None else None
        if kept is not None:
            with self._lock:
                self._apply(decode(MachineConfig, kept))

    def activity(self, connection: Connection, _: bytes) -> None:
        """Tell when the sandbox was last in use."""
        infos = [session.info() for session in self._table.list()]
        if self._agent.has_jobs() or self._sessions_compute():
            self._agent.touch()
        connection.send_message(
            FrameType.ACTIVITY_RESP,
            ActivityInfo(
                last_activity_unix=int(self._agent.last_activity),
                active_sessions=sum(info.running for info in infos),
                attached_sessions=sum(info.attached for info in infos),
            ),
        )

    def power_off(self, connection: Connection, _: bytes) -> None:
        """Have init end the machine, once the client has its answer."""
        if not self._agent.in_machine:
            raise refused(Fault.DENIED, "this agent does not run a machine of its own")
        connection.send_message(FrameType.POWER_OFF_RESP, _OK)
        connection.close()
        os.kill(1, POWER_OFF_SIGNAL)

    def _apply(self, config: MachineConfig) -> None:
        """Take over what only this process knows of a configuration."""
        self._agent.environment = dict(config.env)
        self._agent.user = config.user
        self._agent.token = os.fsencode(config.token) or None
        if config.init and not self._table.has(INIT_SESSION):  # a restored machine has it running already
            InitScript(self._agent, self._table, config).start()

    def _identify(self, config: MachineConfig) -> None:
        random_device = self._agent.doors.random
        if config.entropy and random_device is not None:
            identity.add_entropy(random_device, _decode("entropy", config.entropy))
        identity.set_clock(config.unix_time_ns)
        identity.set_hostname(config.hostname)
        if config.net is not None:
            try:
                interface = read_interface(config.net.ip, config.net.gateway)
            except BadPlan as error:
                raise refused(Fault.INVALID, str(error)) from error
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
                configure(control, NAME, interface)
        if os.path.isdir("/etc"):
            self._put("/etc/hostname", f"{config.hostname}\n".encode(), None)
            self._put("/etc/hosts", identity.hosts_file(config.hostname).encode(), None)
            self._put("/etc/machine-id", f"{identity.machine_id(config.sandbox_id)}\n".encode(), 0o444)
            if config.dns:
                self._put("/etc/resolv.conf", identity.resolver_file(config.dns).encode(), 0o644)

    def _put(self, path: str, content: bytes, mode: int | None) -> None:
        with AtomicWrite(self._agent, path, len(content), mode, follow=False) as file:
            file.write(content)
            file.commit()

    def _mount(self, volume: VolumeMount) -> None:
        if os.path.ismount(volume.mount):
            return
        wait_for_device(volume.device)
        make_parents(self._agent, volume.mount)
        flags = syscalls.MS_NOATIME | (syscalls.MS_RDONLY if volume.read_only else 0)
        syscalls.mount(volume.device, volume.mount, volume.fs, flags)

    def _sessions_compute(self) -> bool:
        """Tell whether the running sessions have used the processor since the last look."""
        leaders = {session.pid for session in self._table.list() if session.ended_at is None}
        if self._agent.doors.proc is None or not leaders:
            return False
        now, ticks = time.monotonic(), session_ticks(self._agent.doors.proc, leaders)
        with self._lock:
            before, self._ticks = self._ticks, (now, ticks)
        if before is None:
            return False
        used_s = (ticks - before[1]) / os.sysconf("SC_CLK_TCK")
        return used_s > _BUSY_SHARE * (now - before[0])


def _decode(name: str, text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise refused(Fault.INVALID, f"content of {name}: {error}") from error
