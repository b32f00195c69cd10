"""What the agent knows and shares between its connections: who it serves, its settings, what runs."""

from __future__ import annotations

import os
import threading
import time

from hearth.agent.accounts import DEFAULT_UID, Account, Accounts
from hearth.agent.freeze import Freezer
from hearth.agent.handover import Handover
from hearth.agent.machine_gate import Gate
from hearth.agent.patience import Patience
from hearth.agent.spawn import Command, StartFailed, end_group
from hearth.wire.messages import ExecRequest
from hearth.wire.record import Record

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LANGUAGE = "C.UTF-8"


class Doors(Record):
    """Descriptors opened before the sandbox's root was entered, so that nothing depends on what that root holds."""

    null: int
    proc: int | None
    random: int | None
    """The kernel's random device, to add entropy to."""
    terminals: int | None
    """The devpts directory to allocate terminals in; None to ask libc."""
    log: int | None = None
    """The kernel's log, of a machine of our own."""


class Agent:
    """The agent's one shared object. Fields change only at CONFIGURE, which replaces whole values."""

    def __init__(
        self,
        *,
        doors: Doors,
        in_machine: bool = False,
        token: bytes | None = None,
        patience: Patience = Patience(),  # noqa: B008 -- a value that cannot change
        handover: Handover | None = None,
    ) -> None:
        """``in_machine`` is true below our init in a virtual machine.

        Processes then drop to the sandbox user, and CONFIGURE sets clock and names. ``handover`` is for what the next
        agent has to know, should this one die.
        """
        self.doors = doors
        self.in_machine = in_machine
        self.token = token
        self.patience = patience
        self.handover = handover
        self.environment: dict[str, str] = {}
        self.user: str | None = None
        self.generation: int | None = None
        self.gate = Gate()
        self.freezer = Freezer(doors.proc) if in_machine and doors.proc is not None else None
        self.last_activity = time.time()
        self.accounts = Accounts()
        self._groups: dict[int, bool] = {}
        self._lock = threading.Lock()

    def touch(self) -> None:
        """Note that the sandbox is in use."""
        self.last_activity = time.time()

    def add_group(self, pid: int, *, is_job: bool, is_use: bool = True) -> None:
        """Note a running process group; a job keeps the sandbox active for as long as it runs."""
        if is_use:
            self.touch()
        if self.handover is not None:
            self.handover.add_group(pid)
        with self._lock:
            self._groups[pid] = is_job

    def remove_group(self, pid: int, *, is_use: bool = True) -> None:
        """Forget a process group, before its leader is reaped."""
        if is_use:
            self.touch()
        with self._lock:
            self._groups.pop(pid, None)
        if self.handover is not None:
            self.handover.remove_group(pid)

    def has_jobs(self) -> bool:
        """True while a job runs."""
        with self._lock:
            return any(self._groups.values())

    def end_all(self) -> None:
        """Kill every process group, at the agent's own end."""
        with self._lock:
            for pid in self._groups:
                end_group(pid)

    def command(self, request: ExecRequest) -> Command:
        """Turn a request into what to run: account, complete environment, directory.

        Raises:
            StartFailed: the user is unknown, or not ours to become.
        """
        account = self.account(request.user)
        environment = {
            "PATH": DEFAULT_PATH,
            "HOME": account.home,
            "LANG": LANGUAGE,
            "TERM": "xterm-256color" if request.tty else "dumb",
            **self.environment,
            **request.env,
        }
        directory = request.cwd or (account.home if os.path.isdir(account.home) else "/")
        becomes = account if self.in_machine or account.uid != os.geteuid() else None
        return Command(
            argv=request.argv,
            environment=environment,
            directory=directory,
            account=becomes,
            checks_directory=request.cwd is not None,
        )

    def account(self, user: str | None) -> Account:
        """Give the account a command runs as: the request's user, the machine's, uid 1000; in test mode ourselves.

        Raises:
            StartFailed: the user is unknown, or not ours to become.
        """
        if user is None and not self.in_machine:
            return self.accounts.own()
        wanted = user or self.user or str(DEFAULT_UID)
        account = self.accounts.find(wanted)
        if account is None:
            raise StartFailed(f"user {wanted[:64]}", "no such user")
        if account.uid != os.geteuid() and os.geteuid() != 0:
            raise StartFailed(f"user {wanted[:64]}", "Operation not permitted")
        return account
