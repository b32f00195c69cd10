"""The life of the agent process: listen, import nothing more, enter the sandbox's root, serve until told to end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

from hearth.agent.handover import Handover
from hearth.agent.kept_table import KeptTable
from hearth.agent.options import Address, Options
from hearth.agent.router import Router, control_handlers, forward_handlers
from hearth.agent.seal import say, seal
from hearth.agent.server import CONTROL_CONNECTIONS, FORWARD_CONNECTIONS, Server, listen
from hearth.agent.services.configure import ConfigureService
from hearth.agent.session_table import SessionTable
from hearth.agent.state import Agent, Doors

_STACK_BYTES = 512 * 1024


def run(options: Options, *, in_machine: bool = False, handover: Handover | None = None) -> None:
    """Serve until SIGTERM or SIGINT; then kill what runs and return.

    ``in_machine`` is for our init alone: it allows what only the agent of a whole machine may do. With a ``handover``
    this agent goes on where a dead one has left.

    Raises:
        OSError: an address cannot be listened on, or the root cannot be entered.
    """
    doors = _open_doors(in_machine)
    agent = Agent(doors=doors, in_machine=in_machine, token=options.token, patience=options.patience, handover=handover)
    control, forward = listen(options.listen), listen(options.forward)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    seal()
    if options.root is not None:
        _enter(options.root)
    threading.stack_size(_STACK_BYTES)
    table = SessionTable(agent)
    kept = KeptTable(agent)
    configuration = ConfigureService(agent, table, kept)
    configuration.resume()
    for name, sock, limit, handlers in (
        ("control", control, CONTROL_CONNECTIONS, control_handlers(agent, table, kept, configuration)),
        ("forward", forward, FORWARD_CONNECTIONS, forward_handlers(agent)),
    ):
        serve = Router(agent, handlers).serve
        Server(name, sock, limit, serve, patience=options.patience, from_outside=options.from_outside).start()
    say(f"hearth: agent listening on {options.listen.text} {options.forward.text}")
    os.read(woken, 1)
    agent.end_all()
    for sock, address in ((control, options.listen), (forward, options.forward)):
        sock.close()
        _unlink(address)


def _open_doors(in_machine: bool) -> Doors:
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    return Doors(
        null=null,
        proc=_directory("/proc"),
        random=os.open("/dev/urandom", os.O_RDWR | os.O_CLOEXEC) if in_machine else None,
        terminals=_directory("/dev/pts") if in_machine else None,
        log=_log() if in_machine else None,
    )


def _log() -> int | None:
    try:
        return os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # a kernel without printk
        return None


def _directory(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None


def _enter(root: str) -> None:
    os.chdir(root)
    os.chroot(".")


def _unlink(address: Address) -> None:
    if isinstance(address.address, str):
        with contextlib.suppress(OSError):
            os.unlink(address.address)
