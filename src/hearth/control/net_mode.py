"""Which networks machines get: those of this host's kernel, or user-mode networking where the rights for them lack."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import structlog

from hearth.config import Settings
from hearth.engine.qemu import passt
from hearth.engine.qemu.command import Wire
from hearth.engine.qemu.confinement import Confinement, RootsMeans, UsersMeans
from hearth.errors import HostUnfit, InvalidInput
from hearth.host import enclosure
from hearth.host.files import write_atomic
from hearth.host.rights import FOR_FULL_MODE, missing
from hearth.network.machine import MachineNetwork
from hearth.network.user import UserNetwork

log = structlog.get_logger(__name__)

AUTO = "auto"
WIRE_FILE = "user-wire"


class NetMode(StrEnum):
    """How guests are connected."""

    FULL = "full"
    USER = "user"


def available() -> NetMode:
    """Tell what this process has the rights for."""
    return NetMode.USER if missing(FOR_FULL_MODE) else NetMode.FULL


def choose(settings: Settings) -> NetMode:
    """Give the networks that a daemon was told to make, or those it can.

    Raises:
        InvalidInput: a setting makes no sense, or asks for what user-mode networking has not.
        HostUnfit: they are not to be had here.
    """
    if settings.net not in (AUTO, *NetMode):
        raise InvalidInput("invalid net", details=repr(settings.net), resolution="use auto, full or user", field="net")
    lacking = ", ".join(sorted(missing(FOR_FULL_MODE)))
    mode = available() if settings.net == AUTO else NetMode(settings.net)
    if mode is NetMode.FULL:
        if lacking:
            raise HostUnfit(
                "this process may not make networks",
                details=f"it lacks {lacking}",
                resolution="run the daemon as root, or leave 'net' to 'auto' for user-mode networking",
            )
        return mode
    _check_user_mode(settings)
    log.info("user-mode networking", because=f"without {lacking}" if lacking else "told so", lacks="see hearth doctor")
    return mode


def confinement_of(network: MachineNetwork) -> Confinement:
    """Give what keeps the VMMs of such a network from this host."""
    return UsersMeans(Wire(network.wire)) if isinstance(network, UserNetwork) else RootsMeans()


def wire_of(root: Path) -> Wire:
    """Tell what the guests' wires of a data directory end in: passt where one that will do was there at its beginning.

    It stays so: a machine that sleeps with one wire cannot wake with another.

    Raises:
        HostUnfit: it was passt, and that is not installed any more.
    """
    mark = root / WIRE_FILE
    if not mark.exists():
        write_atomic(mark, f"{_best_wire()}\n".encode(), mode=0o600)
    wire = Wire.PASST if mark.read_text().strip() == Wire.PASST else Wire.QEMU
    if wire is Wire.PASST and not passt.is_installed():
        raise HostUnfit(
            "passt is not installed",
            details=f"the machines in {root} were made with it",
            resolution=f"apt-get install passt; or remove {mark}: sandboxes that sleep then lose their memory",
        )
    return wire


def _best_wire() -> Wire:
    if not passt.is_installed():
        return Wire.QEMU
    if passt.refuses_at_once():
        return Wire.PASST
    log.warning("passt is not used: with this one guests wait long for what they may not reach", instead="QEMU's own")
    return Wire.QEMU


def _check_user_mode(settings: Settings) -> None:
    if settings.net_default != Settings.net_default:
        raise InvalidInput(
            "sandboxes reach nothing with user-mode networking",
            details=f"net_default {settings.net_default!r} takes networks of this host's kernel, whose rules keep a "
            "sandbox from the host and from private networks",
            resolution="leave net_default out, or run the daemon as root",
            field="net_default",
        )
    if (why := enclosure.obstacle()) is not None:
        raise HostUnfit(
            "sandboxes cannot be isolated without root on this host",
            details=f"a VMM needs namespaces of its own, and the kernel refuses: {why}",
            resolution=enclosure.HOW_TO_PERMIT,
        )
