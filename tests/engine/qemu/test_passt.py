"""What is told to passt, and which answer of it makes a guest go on; with machines it is tested in tests/machines."""

from __future__ import annotations

import pytest

from hearth.engine.qemu import passt
from hearth.engine.qemu.command import Descriptor, QemuSpec, Wire, build
from hearth.model import Accelerator
from hearth.network.plan import PLAN

HEAD = bytes(4 + 14 + 20 + 13)


def test_passt_leads_to_the_agents_ports_and_to_nothing_else() -> None:
    words = passt.command(PLAN)
    assert words[0] == "passt"
    assert {"--no-map-gw", "--no-udp", "--no-icmp", "--ipv4-only"} <= set(words)
    assert words[words.index("--tcp-ports") + 1] == "127.0.0.1/1024,1025"
    assert words[words.index("--fd") + 1] == str(int(Descriptor.SWITCH))


def test_the_guest_is_announced_with_its_length_in_front() -> None:
    frame = passt.announcement(PLAN)
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4 == 42
    assert frame[10:16].hex(":") == PLAN.guest_mac
    assert frame.count(PLAN.guest.ip.packed) == 2


@pytest.mark.parametrize(("flags", "refused"), [(0x14, True), (0x04, False), (0x12, False), (None, False)])
def test_only_a_reset_with_an_acknowledgement_is_a_refusal(flags: int | None, refused: bool) -> None:
    assert passt.is_refusal(HEAD if flags is None else HEAD + bytes([flags]) + bytes(6)) is refused


def test_qemu_is_given_its_end_of_the_wire() -> None:
    spec = QemuSpec(
        name="one",
        accelerator=Accelerator.TCG,
        cpus=1,
        memory_mib=256,
        tsc_khz=None,
        mac=PLAN.guest_mac,
        wire=Wire.PASST,
    )
    words = build("qemu", spec)
    assert words[words.index("-netdev") + 1] == "stream,id=net0,server=off,addr.type=fd,addr.str=12"
