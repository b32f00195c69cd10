"""CONFIGURE: a machine takes on its identity, and is shut to every other request until it has it."""

from __future__ import annotations

import os
from collections.abc import Callable

from hearth.agent.connection import Connection
from hearth.agent.init_script import InitScript, check_policy
from hearth.agent.kept_table import KeptTable
from hearth.agent.root_disk import grow_root
from hearth.agent.seal import say
from hearth.agent.self_check import check_machine
from hearth.agent.session_table import INIT_SESSION, SessionTable
from hearth.agent.state import Agent
from hearth.agent.volumes import mount_volumes
from hearth.agent.wake import Prepared, StepFailed, identify, prepare, put_file, step
from hearth.wire.frames import FrameType
from hearth.wire.messages import MachineConfig, Status, decode


class ConfigureService:
    """Configures; in test mode it keeps to token, environment, user, files and init script."""

    def __init__(self, agent: Agent, table: SessionTable, kept: KeptTable) -> None:
        self._agent = agent
        self._table = table
        self._kept = kept
        self._sandbox_id: str | None = None

    def handlers(self) -> dict[int, Callable[[Connection, bytes], None]]:
        """Give the requests this service answers."""
        return {FrameType.CONFIGURE: self.configure}

    def configure(self, connection: Connection, payload: bytes) -> None:
        """Give the machine its identity. Everything may be done again, which is what happens after every restore."""
        config = decode(MachineConfig, payload)
        prepared = prepare(config)
        check_policy(config)
        if self._agent.freezer is not None:
            self._agent.freezer.release()  # before we wait for another one, which may be writing to what is frozen
        status = Status(status="ok")
        try:
            with self._agent.gate.closed():
                if self._agent.handover is not None:
                    self._agent.handover.unsettle()
                self._carry_out(config, prepared)
                if self._agent.handover is not None:
                    self._agent.handover.keep_configuration(payload)
                self._apply(config)
        except StepFailed as error:
            say(f"hearth: not configured: {error}")
            status = Status(status="error", message=str(error))
        connection.send_message(FrameType.CONFIGURED, status)

    def resume(self) -> None:
        """Go on as the agent before this one was configured, if it died; what it ran has been ended, so start init.

        If it died half-way through a configuration, or that had failed, only another one makes the machine serve again.
        """
        if self._agent.freezer is not None:
            self._agent.freezer.thaw()  # who would have done it is gone
        handover = self._agent.handover
        if handover is None:
            return
        kept, is_settled = handover.configuration(), handover.is_settled()
        if kept is not None:
            with self._agent.gate.closed():
                self._apply(decode(MachineConfig, kept), starts_init=is_settled)
        if not is_settled:
            self._agent.generation = None
            self._agent.gate.shut()

    def _carry_out(self, config: MachineConfig, prepared: Prepared) -> None:
        is_new_life = self._agent.in_machine and identify(self._agent, config, prepared)
        if self._agent.in_machine and config.root_bytes is not None:
            with step("root disk"):
                grow_root(self._agent, config.root_bytes)
        for path, (content, mode) in prepared.files.items():
            with step("files"):
                put_file(self._agent, path, content, mode, config.files[path].user)
        if self._agent.in_machine:
            with step("volumes"):
                mount_volumes(self._agent, config.volumes)
            with step("self-check"):
                check_machine(self._agent, in_full=not is_new_life)

    def _apply(self, config: MachineConfig, *, starts_init: bool = True) -> None:
        """Take over what only this process knows of a configuration."""
        if self._sandbox_id not in (None, config.sandbox_id):
            self._kept.end_all()  # this is a copy: the host of what was kept knows it by the original
        self._sandbox_id = config.sandbox_id
        self._agent.environment = dict(config.env)
        self._agent.user = config.user
        self._agent.token = os.fsencode(config.token) or None
        self._agent.generation = config.generation
        is_running = self._table.has(INIT_SESSION)  # as in a restored machine
        if starts_init and config.init and not is_running:
            InitScript(self._agent, self._table, config).start()
