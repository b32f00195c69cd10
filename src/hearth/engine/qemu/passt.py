"""passt as the other end of a guest's wire, in a process beside the VMM; and whether the one installed will do."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import tempfile
from ipaddress import IPv4Address
from pathlib import Path

from hearth.engine.qemu.command import Descriptor
from hearth.errors import HostUnfit
from hearth.guest.dial import CONTROL_PORT, FORWARD_PORT
from hearth.host import enclosure
from hearth.host.process import SMALL_ENVIRONMENT
from hearth.network.plan import PLAN, AddressPlan

PASST = "passt"
ANSWER_S = 5.0
ELSEWHERE = (IPv4Address("198.51.100.1"), 443)
"""For documentation (RFC 5737): nobody is there, in an enclosure less than anywhere."""
SYN, RST, ACK = 2, 4, 16
"""Flags of TCP (RFC 9293, 3.1)."""
ETHERNET_BYTES, IP_BYTES, LENGTH_BYTES = 14, 20, 4


def is_installed() -> bool:
    """Tell whether passt is there to be started."""
    return shutil.which(PASST, path=SMALL_ENVIRONMENT["PATH"]) is not None


def command(plan: AddressPlan) -> list[str]:
    """Give program and arguments: what the guest begins ends there, the agent's ports on the loopback lead to it.

    Its network has a loopback and no way on, and what is on the loopback it does not offer to the guest either.
    Source: passt(1).
    """
    guest, ports = plan.guest, f"127.0.0.1/{CONTROL_PORT},{FORWARD_PORT}"
    here = ["--interface", "lo", "--address", str(guest.ip), "--netmask", str(guest.network.prefixlen)]
    there = ["--gateway", str(plan.gateway.ip), "--mac-addr", plan.gateway_mac, "--no-map-gw"]
    without = ["--ipv4-only", "--no-udp", "--no-icmp", "--no-dhcp", "--dns", "none", "--search", "none"]
    wire = ["--tcp-ports", ports, "--fd", str(int(Descriptor.SWITCH))]
    return [PASST, "--foreground", "--quiet", "--stderr", *here, *there, *without, *wire]


def switch(plan: AddressPlan) -> enclosure.Switch:
    """Give passt for beside a VMM.

    It learns the guest's MAC from what that sends; a guest that woke in the midst of its life has no reason to speak
    first, so passt is greeted in its name.
    """
    return enclosure.Switch(argv=command(plan), number=Descriptor.SWITCH, greeting=announcement(plan))


def refuses_at_once() -> bool:
    """Try whether passt answers a connection to nowhere so that a guest takes it for a refusal. Blocking, 60 ms.

    Some reset it without an acknowledgement (0.0~git20230309 does), which a client that has just begun has to ignore
    (RFC 9293, 3.10.7.3): it would wait for two minutes where QEMU's own network lets it go on at once.
    """
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with near, far, tempfile.TemporaryDirectory() as directory, open(os.devnull, "wb") as output:
        with enclosure.open_gate(Path(directory) / "gate") as gate:
            trial = enclosure.Enclosed(argv=command(PLAN), limits={}, gate=Descriptor.TAP)
            descriptors = {int(Descriptor.TAP): gate.fileno(), int(Descriptor.SWITCH): far.fileno()}
            try:
                process = enclosure.start(trial, descriptors=descriptors, output=output.fileno())
            except HostUnfit:
                return False
        try:
            near.settimeout(ANSWER_S)
            near.sendall(announcement(PLAN) + _framed(PLAN, b"\x08\x00", _syn(PLAN)))
            reply = near.recv(2048)
        except OSError:
            return False
        finally:
            enclosure.bury(process)
    return is_refusal(reply)


def is_refusal(reply: bytes) -> bool:
    """Tell whether a frame ends a connection that has just begun, for whoever began it."""
    flags = reply[LENGTH_BYTES + ETHERNET_BYTES + IP_BYTES + 13 :][:1]
    return bool(flags) and flags[0] & (RST | ACK) == RST | ACK


def announcement(plan: AddressPlan) -> bytes:
    """Give an ARP announcement of the guest (RFC 5227) as QEMU's stream sockets carry it."""
    address = plan.guest.ip.packed
    packet = b"\0\1\x08\0\x06\x04\0\1" + _octets(plan.guest_mac) + address + bytes(6) + address
    return _framed(plan, b"\x08\x06", packet, to="ff:ff:ff:ff:ff:ff")


def _framed(plan: AddressPlan, kind: bytes, packet: bytes, *, to: str | None = None) -> bytes:
    frame = _octets(to or plan.gateway_mac) + _octets(plan.guest_mac) + kind + packet
    return len(frame).to_bytes(LENGTH_BYTES, "big") + frame


def _syn(plan: AddressPlan) -> bytes:
    address, port = ELSEWHERE
    ends = plan.guest.ip.packed + address.packed
    segment = struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, SYN, 65535, 0, 0)
    total = _checksum(ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(segment)) + segment)
    segment = segment[:16] + total + segment[18:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, IP_BYTES + len(segment), 1, 0, 64, socket.IPPROTO_TCP, 0) + ends
    return head[:10] + _checksum(head) + head[12:] + segment


def _checksum(data: bytes) -> bytes:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
