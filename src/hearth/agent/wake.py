"""What makes a machine itself again after it was booted, restored or copied: the steps of CONFIGURE, in their order.

Each step either succeeds or ends the whole: a machine that shares its random numbers, its connections or its name with
another one runs nothing. All of it may be done any number of times.
"""

from __future__ import annotations

import binascii
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from hearth.agent import identity
from hearth.agent.bringup.network import NAME, configure
from hearth.agent.bringup.plan import BadPlan, Interface, read_interface
from hearth.agent.files.paths import parse_mode
from hearth.agent.files.writing import AtomicWrite
from hearth.agent.old_connections import end_old_connections
from hearth.agent.refusal import Refused, refusal_of_os, refused
from hearth.agent.self_check import Unwell
from hearth.agent.spawn import StartFailed
from hearth.agent.ssh_keys import renew_host_keys
from hearth.agent.state import Agent
from hearth.agent.watchers import announce, signal_watchers
from hearth.wire.faults import Fault
from hearth.wire.messages import MachineConfig
from hearth.wire.record import Record

OWN_PORTS = frozenset((1024, 1025))
"""The agent's, to which the host is connected at this moment."""
MIN_ENTROPY = 32
MACHINE_ID_FILE = "/etc/machine-id"
_DBUS_MACHINE_ID_FILE = "/var/lib/dbus/machine-id"
_HEX_DIGITS = frozenset("0123456789abcdef")


class StepFailed(Exception):
    """A step could not be done; the text begins with its name."""


class Prepared(Record):
    """What a configuration says, read and found good before anything is changed."""

    entropy: bytes
    machine_id: str
    interface: Interface | None
    files: dict[str, tuple[bytes, int | None]]
    """Content and mode by path."""


def prepare(config: MachineConfig) -> Prepared:
    """Look at a whole configuration.

    Raises:
        Refused: something in it makes no sense.
    """
    entropy = _decode("entropy", config.entropy)
    if config.generation is not None and len(entropy) < MIN_ENTROPY:
        raise refused(Fault.INVALID, f"entropy has {len(entropy)} bytes, a generation needs at least {MIN_ENTROPY}")
    machine_id = identity.machine_id(config.sandbox_id) if config.machine_id is None else config.machine_id
    if len(machine_id) != 32 or not _HEX_DIGITS.issuperset(machine_id) or not machine_id.strip("0"):
        raise refused(Fault.INVALID, "machine_id is not 32 hexadecimal digits in lower case, or all zero")
    try:
        interface = None if config.net is None else read_interface(config.net.ip, config.net.gateway)
    except BadPlan as error:
        raise refused(Fault.INVALID, str(error)) from error
    files = {
        path: (_decode(f"content of {path}", file.content), parse_mode(file.mode))
        for path, file in config.files.items()
    }
    return Prepared(entropy=entropy, machine_id=machine_id, interface=interface, files=files)


@contextmanager
def step(name: str) -> Iterator[None]:
    """Name the step that fails.

    Raises:
        StepFailed: it does.
    """
    try:
        yield
    except (Refused, StartFailed, Unwell) as error:
        raise StepFailed(f"{name}: {error}") from error
    except OSError as error:
        raise StepFailed(f"{name}: {refusal_of_os(error)}") from error


def identify(agent: Agent, config: MachineConfig, prepared: Prepared) -> bool:
    """Give our machine its random numbers, time, addresses and names; end what an earlier life has left.

    Returns:
        Whether this is a life that the machine did not know of.

    Raises:
        StepFailed: one of them could not be given; the machine must not be used then.
    """
    is_new_life = config.generation is not None and config.generation != agent.generation
    with step("entropy"):
        if prepared.entropy:
            if agent.doors.random is None:
                raise refused(Fault.INTERNAL, "there is no random device")
            identity.add_entropy(agent.doors.random, prepared.entropy)
    with step("clock"):
        identity.set_clock(config.unix_time_ns)
        agent.touch()
    with step("host name"):
        identity.set_hostname(config.hostname)
    if prepared.interface is not None:
        with step("addresses"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            configure(control, NAME, prepared.interface)
    if is_new_life:
        with step("connections"):
            end_old_connections(OWN_PORTS)
    _write_names(agent, config, prepared.machine_id, is_new_life=is_new_life)
    if is_new_life and config.generation is not None:
        with step("generation"):
            announce(agent, config.generation, config.unix_time_ns // 10**9)
            if agent.doors.proc is not None:
                signal_watchers(agent.doors.proc)
    return is_new_life


def put_file(agent: Agent, path: str, content: bytes, mode: int | None, user: str | None = None) -> None:
    """Put a file of the configuration in its place; a link there is replaced. In a machine it becomes ``user``'s.

    In a machine it is not waited for until it is on the disk: every boot writes it again.

    Raises:
        Refused, OSError: it cannot be written.
    """
    with AtomicWrite(agent, path, len(content), mode, follow=False, durable=not agent.in_machine) as file:
        file.write(content)
        account = agent.accounts.find(user) if user is not None and agent.in_machine else None
        if account is not None:
            file.give_to(account.uid, account.gid)
        file.commit()


def _write_names(agent: Agent, config: MachineConfig, machine_id: str, *, is_new_life: bool) -> None:
    if not os.path.isdir("/etc"):
        return
    with step("names"):
        _put_name(agent, "/etc/hostname", f"{config.hostname}\n".encode(), None)
        _put_name(agent, "/etc/hosts", identity.hosts_file(config.hostname).encode(), None)
        if config.dns:
            _put_name(agent, "/etc/resolv.conf", identity.resolver_file(config.dns).encode(), 0o644)
    line = f"{machine_id}\n".encode()
    if is_new_life and not _holds(MACHINE_ID_FILE, line):
        # Before the machine-id: should this fail, the next attempt sees that it is still to do.
        with step("SSH host keys"):
            renew_host_keys(agent)
    with step("machine-id"):
        if _is_file(_DBUS_MACHINE_ID_FILE):
            _put_name(agent, _DBUS_MACHINE_ID_FILE, line, 0o444)
        _put_name(agent, MACHINE_ID_FILE, line, 0o444)


def _put_name(agent: Agent, path: str, content: bytes, mode: int | None) -> None:
    """Put a file unless it is there: a machine that stays who it is wakes with a full disk, too."""
    if not _holds(path, content) and not _overwrite(path, content, mode):
        put_file(agent, path, content, mode)


def _overwrite(path: str, content: bytes, mode: int | None) -> bool:
    """Write into a file that is there; False where it is none, is another's too, or has another mode.

    A new file would be whole at every moment, but who makes one waits for more of the file system than for all else
    that a copy does before its first command. A name that a crash has torn the next boot writes again.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        facts = os.fstat(descriptor)
        has_mode = mode is None or stat.S_IMODE(facts.st_mode) == mode
        if not (stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1 and has_mode):
            return False
        if os.pwrite(descriptor, content, 0) != len(content):
            return False
        if facts.st_size > len(content):
            os.ftruncate(descriptor, len(content))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def _holds(path: str, content: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(descriptor, len(content) + 1) == content
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def _decode(name: str, text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise refused(Fault.INVALID, f"{name}: {error}") from error
