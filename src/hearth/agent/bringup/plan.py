"""What the kernel's command line asks of init, as a value."""

from __future__ import annotations

import socket

from hearth.wire.record import Record


class BadPlan(Exception):
    """A word of the command line cannot be used."""


class Interface(Record):
    """The machine's own address and its way out."""

    address: str
    netmask: str
    gateway: str | None


class Plan(Record):
    """``root`` is the block device of the sandbox's file system, None for a machine that stays in the initramfs."""

    root: str | None
    root_kind: str
    interface: Interface | None
    reboots_to_end: bool
    """True where a reset ends the machine (``reboot=t``, a VMM that does not reboot) and power-off may not exist."""


def read_plan(command_line: str) -> Plan:
    """Read ``hearth.root=``, ``hearth.rootfs=``, ``hearth.ip=ADDRESS/PREFIX``, ``hearth.gw=`` and ``reboot=``.

    Raises:
        BadPlan: a value is malformed.
    """
    words = dict(word.split("=", 1) for word in command_line.split() if "=" in word)
    root, cidr = words.get("hearth.root"), words.get("hearth.ip")
    if root is not None and not root.startswith("/dev/"):
        raise BadPlan(f"hearth.root={root} is no device")
    return Plan(
        root=root,
        root_kind=words.get("hearth.rootfs", "ext4"),
        interface=read_interface(cidr, words.get("hearth.gw")) if cidr is not None else None,
        reboots_to_end=words.get("reboot") == "t",
    )


def read_interface(cidr: str, gateway: str | None) -> Interface:
    """Read ``ADDRESS/PREFIX`` and a gateway.

    Raises:
        BadPlan: one of them is malformed.
    """
    address, _, prefix = cidr.partition("/")
    try:
        for text in (address, gateway or address):
            socket.inet_pton(socket.AF_INET, text)
        bits = int(prefix)
        if bits < 0:
            raise ValueError(f"prefix {bits}")
        netmask = socket.inet_ntop(socket.AF_INET, (0xFFFFFFFF << 32 - bits & 0xFFFFFFFF).to_bytes(4, "big"))
    except (OSError, ValueError) as error:
        raise BadPlan(f"address {cidr}, gateway {gateway}: {error}") from error
    return Interface(address=address, netmask=netmask, gateway=gateway)
