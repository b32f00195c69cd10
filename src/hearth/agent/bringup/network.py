"""The machine's interfaces, by the ioctls of netdevice(7): they need no library and no message parser."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time

from hearth.agent.bringup.plan import Interface

NAME = "eth0"
APPEAR_TIMEOUT_S = 5.0

_SIOCADDRT = 0x890B
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_SIOCSIFADDR = 0x8916
_SIOCSIFNETMASK = 0x891C
_IFF_UP = 1
_RTF_UP_GATEWAY = 0x1 | 0x2
_POLL_S = 0.002


def bring_up(interface: Interface | None) -> None:
    """Bring up the loopback and, where one is asked for, the first Ethernet interface.

    Raises:
        OSError: the kernel refused.
        TimeoutError: the interface did not appear.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _set_up(control, "lo")
        if interface is not None:
            _wait_for(NAME)
            _leave_out_ipv6(NAME)
            configure(control, NAME, interface)


def configure(control: socket.socket, name: str, interface: Interface) -> None:
    """Set address, netmask and default route of an interface. Doing it twice is fine.

    Raises:
        OSError: the kernel refused.
    """
    fcntl.ioctl(control, _SIOCSIFADDR, _request(name) + _address(interface.address) + bytes(8))
    fcntl.ioctl(control, _SIOCSIFNETMASK, _request(name) + _address(interface.netmask) + bytes(8))
    _set_up(control, name)
    if interface.gateway is not None:
        add_default_route(control, interface.gateway)


def add_default_route(control: socket.socket, gateway: str) -> None:
    """Add the default route (struct rtentry of route(4)); one that is there already is fine.

    Raises:
        OSError: the gateway cannot be reached.
    """
    everything = _address("0.0.0.0")
    route = struct.pack("L16s16s16sHh", 0, everything, _address(gateway), everything, _RTF_UP_GATEWAY, 0)
    try:
        fcntl.ioctl(control, _SIOCADDRT, route.ljust(120, b"\0"))
    except FileExistsError:
        return


def _set_up(control: socket.socket, name: str) -> None:
    answer = fcntl.ioctl(control, _SIOCGIFFLAGS, _request(name) + bytes(24))
    flags: int = struct.unpack_from("H", answer, 16)[0]
    fcntl.ioctl(control, _SIOCSIFFLAGS, _request(name) + struct.pack("H", flags | _IFF_UP) + bytes(22))


def _request(name: str) -> bytes:
    return name.encode("ascii").ljust(16, b"\0")


def _address(text: str) -> bytes:
    """Give a struct sockaddr_in."""
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))


def _leave_out_ipv6(name: str) -> None:
    """Keep IPv6 off an interface beyond which nobody speaks it: no addresses tried out, no routers asked for."""
    with contextlib.suppress(OSError), open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w") as file:
        file.write("1")


def _wait_for(name: str) -> None:
    deadline = time.monotonic() + APPEAR_TIMEOUT_S
    while not os.path.exists(f"/sys/class/net/{name}"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} did not appear within {APPEAR_TIMEOUT_S:.0f} s")
        time.sleep(_POLL_S)
