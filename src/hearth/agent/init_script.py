"""The sandbox's init script under supervision: started again by its policy, and checked by a command."""

from __future__ import annotations

import select
import threading
import time

from hearth.agent.exit_watch import watch_child
from hearth.agent.refusal import Refused, refused
from hearth.agent.seal import say
from hearth.agent.session import Session, Supervision
from hearth.agent.session_table import INIT_SESSION, SessionTable
from hearth.agent.spawn import StartFailed, end_group, spawn
from hearth.agent.state import Agent
from hearth.wire.faults import Fault
from hearth.wire.messages import ExecRequest, MachineConfig

NEVER, ON_FAILURE, ALWAYS = "never", "on-failure", "always"
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 30.0
"""The longest pause before a start; a script that ran as long as this begins anew with the shortest."""
_MAX_S = 86_400.0


def check_policy(config: MachineConfig) -> None:
    """Look at what the configuration says of the init script before anything is changed.

    Raises:
        Refused: no such policy, or a health check that makes no sense.
    """
    if config.init_restart not in (NEVER, ON_FAILURE, ALWAYS):
        raise refused(Fault.INVALID, f"init_restart is {config.init_restart[:40]!r}")
    health = config.init_health
    if health is None:
        return
    if not health.argv or health.retries < 1:
        raise refused(Fault.INVALID, "init_health needs argv and at least one try")
    if not (0 < health.interval_sec <= _MAX_S and 0 < health.timeout_sec <= _MAX_S):
        raise refused(Fault.INVALID, "init_health has a time of zero, below it or of more than a day")


class InitScript:
    """Runs the script as the session ``init``. A session that ends stays listed with its code until the next start."""

    def __init__(self, agent: Agent, table: SessionTable, config: MachineConfig) -> None:
        self._agent = agent
        self._table = table
        self._request = ExecRequest(argv=["/bin/sh", "-c", config.init or ""], session=True)
        self._restart = config.init_restart
        self._health = config.init_health
        self._state = Supervision()
        self._ended = threading.Event()
        self._code = 0

    def start(self) -> None:
        """Start the script; a start that fails is said and, by the policy, tried again."""
        session = self._run()
        if self._restart != NEVER or (self._health is not None and session is not None):
            threading.Thread(target=self._supervise, args=(session,), name="init-script", daemon=True).start()

    def _run(self) -> Session | None:
        self._ended.clear()
        self._state.healthy = None
        try:
            session = self._table.create(self._request, INIT_SESSION, self._note_end)
        except (StartFailed, Refused, OSError) as error:
            say(f"hearth: init script: {error}")
            return None
        session.supervision = self._state
        return session

    def _note_end(self, code: int) -> None:
        say(f"hearth: init script ended with {code}")
        self._code = code
        self._ended.set()

    def _supervise(self, session: Session | None) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            started = time.monotonic()
            if session is not None:
                self._watch(session)
                if self._restart == NEVER or (self._restart == ON_FAILURE and self._code == 0):
                    return
            if time.monotonic() - started > MAX_PAUSE_S:
                pause_s = FIRST_PAUSE_S
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
            self._state.restarts += 1
            session = self._run()

    def _watch(self, session: Session) -> None:
        """Wait for the script's end; one that failed its check too often in a row is killed if it may start again."""
        health, failures = self._health, 0
        while not self._ended.wait(None if health is None else health.interval_sec):
            assert health is not None
            failures = 0 if self._is_well(health.argv, health.timeout_sec) else failures + 1
            if not failures:
                self._state.healthy = True
            elif failures >= health.retries:
                self._state.healthy = False
                if self._restart != NEVER and not self._ended.is_set():
                    say("hearth: init script is not well and is killed")
                    session.signal(9)
                    self._ended.wait()
                    return

    def _is_well(self, argv: list[str], timeout_s: float) -> bool:
        """Run the check to its end. It is no activity: a sandbox that is only asked after its health is idle."""
        null = self._agent.doors.null
        try:
            pid = spawn(self._agent.command(ExecRequest(argv=argv)), null, null, null)
            watch = watch_child(pid)
        except (StartFailed, OSError):
            return False
        self._agent.add_group(pid, is_job=False, is_use=False)
        poller = select.poll()
        poller.register(watch.fileno(), select.POLLIN)
        ended = bool(poller.poll(timeout_s * 1000))
        end_group(pid)
        self._agent.remove_group(pid, is_use=False)
        return watch.collect() == 0 and ended
