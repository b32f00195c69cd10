"""QEMU's command line, as a pure function of what a machine is: golden tests hold it.

No path of a machine's files appears in it: sockets, TAP and disks are handed over as descriptors of fixed numbers, so
that the process needs no right to open them.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from ipaddress import IPv4Interface

from hearth.engine.qemu.slots import all_slots, slot_words
from hearth.guest.dial import CONTROL_PORT, FORWARD_PORT
from hearth.model import Accelerator

JIFFIES_PER_S = 250
"""CONFIG_HZ of Debian's kernels; ``lpj`` is kHz * 1000 / HZ."""
TRANSLATION_CACHE_MIB = 64
"""Bound of TCG's code cache; the default takes up to a quarter of the host's memory."""

EMULATED_CPU = "Nehalem,+arat"
"""The x86-64-v2 baseline that distributions build for. With ``max`` a boot took 3.7 s instead of 3.2: programs then
choose vector instructions that are slow to translate. Without ``arat`` Linux takes its timer for one that stops when
the CPU sleeps, and ticks 250 times a second for ever, idle or not."""


ROOT = "root"
"""The node of the machine's own disk."""
DRIVES = (ROOT, *(slot.node for slot in all_slots()))
"""Block devices in the order the guest sees them; a snapshot holds the state of exactly these."""


class Descriptor(IntEnum):
    """The child's numbers of the descriptors it is given; ``LAYER`` is the first of as many as there are layers.

    ``TAP`` is the machine's end of its network; with user-mode networking its gate, which the VMM itself does not get.
    ``SWITCH`` is its end of the wire to passt.
    13 to 15 are those of ``hearth.host.enclosure``.
    """

    QMP = 3
    CONSOLE = 4
    BASE = 5
    OVERLAY = 6
    TAP = 7
    KERNEL = 8
    INITRAMFS = 9
    MEMORY = 10
    STATE = 11
    SWITCH = 12
    LAYER = 16


class Wire(StrEnum):
    """What the other end of a guest's wire is: a TAP, QEMU itself, or passt beside it."""

    TAP = "tap"
    QEMU = "qemu"
    PASST = "passt"


@dataclass(frozen=True, kw_only=True)
class QemuSpec:
    """All that shapes a command line; without ``tsc_khz`` (the host's counter) a TCG guest gets a safer machine.

    Args:
        layers: read-only qcow2 files between the root file system and the machine's own disk, as clones have.
        restored: the machine starts with the memory in ``Descriptor.MEMORY`` and waits for its device state.
    """

    name: str
    accelerator: Accelerator
    cpus: int
    memory_mib: int
    tsc_khz: int | None
    guest_cidr: str | None = None
    gateway: str | None = None
    mac: str | None = None
    disk: bool = True
    layers: int = 0
    restored: bool = False
    wire: Wire = Wire.TAP


def build(binary: str, spec: QemuSpec) -> list[str]:
    """Give program and arguments for one machine."""
    return [
        binary,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-name", spec.name),
        *_machine(spec),
        *("-smp", str(spec.cpus)),
        *("-object", _memory(spec)),
        *("-m", str(spec.memory_mib)),
        *(("-S", "-incoming", "defer") if spec.restored else _kernel(spec)),
        *("-chardev", f"socket,id=qmp,fd={Descriptor.QMP:d},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=console,fd={Descriptor.CONSOLE:d},server=on,wait=off"),
        *("-serial", "chardev:console"),
        *("-object", "rng-random,id=rng0,filename=/dev/urandom"),
        *("-device", f"virtio-rng-{_bus(spec)},rng=rng0"),
        *(_disk(spec) if spec.disk else ()),
        *(_network(spec) if spec.mac else ()),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
    ]


def kernel_parameters(spec: QemuSpec) -> str:
    """Give the guest kernel's command line, with hearth's own words for the agent's init."""
    words = [
        "quiet",
        "console=ttyS0",
        "reboot=t",
        "panic=-1",
        "8250.nr_uarts=1",
        "random.trust_cpu=on",
        "cryptomgr.notests",
        # What programs gave back is zeros then: no snapshot holds it, and swap packs it into nothing.
        "init_on_free=1",
        # A freeze waits for all readers several times over: 40 ms if it waits for ticks, next to none if it asks them.
        "rcupdate.rcu_expedited=1",
    ]
    if spec.accelerator is Accelerator.TCG:
        # Bookkeeping that nobody in the guest has asked for, on every switch and every file that is opened.
        words += ["no_timer_check", "mitigations=off", "psi=0", "lsm=landlock,yama,bpf"]
        if spec.tsc_khz is not None:
            lpj = spec.tsc_khz * 1000 // JIFFIES_PER_S
            words += ["tsc=reliable", f"tsc_early_khz={spec.tsc_khz}", f"lpj={lpj}"]
    if spec.disk:
        words += ["hearth.root=/dev/vda", "hearth.rootfs=ext4"]
    if spec.guest_cidr and spec.gateway:
        words += [f"hearth.ip={spec.guest_cidr}", f"hearth.gw={spec.gateway}"]
    return " ".join(words)


def _kernel(spec: QemuSpec) -> list[str]:
    files = ["-kernel", f"/proc/self/fd/{Descriptor.KERNEL:d}", "-initrd", f"/proc/self/fd/{Descriptor.INITRAMFS:d}"]
    return [*files, "-append", kernel_parameters(spec)]


def _memory(spec: QemuSpec) -> str:
    size = f"id=ram0,size={spec.memory_mib}M"
    if not spec.restored:
        return f"memory-backend-ram,{size}"
    # Private: what the machine writes stays with it, what it only reads is shared with all others of this memory.
    return f"memory-backend-file,{size},mem-path=/proc/self/fd/{Descriptor.MEMORY:d},share=off"


def shape(spec: QemuSpec) -> str:
    """Hash what a device state depends on: the machine, its CPUs and its devices, in order, but nothing of one machine.

    Two machines of one shape can take each other's states.
    """
    any_machine = replace(spec, name="", memory_mib=1, layers=0, restored=True, disk=True, mac="any")
    counter = str(spec.tsc_khz) if spec.accelerator is Accelerator.TCG else ""
    return hashlib.sha256("\0".join([*build("", any_machine), counter]).encode()).hexdigest()


def cpu_model(spec: QemuSpec) -> str:
    """Name the guest's CPU as far as it is ours to choose."""
    return "host" if spec.accelerator is Accelerator.KVM else EMULATED_CPU


def _is_microvm(spec: QemuSpec) -> bool:
    return spec.accelerator is Accelerator.KVM or spec.tsc_khz is not None


def _bus(spec: QemuSpec) -> str:
    return "device" if _is_microvm(spec) else "pci"


def _machine(spec: QemuSpec) -> list[str]:
    if spec.accelerator is Accelerator.KVM:
        accelerator, timers = "kvm", "pit=off,pic=off,rtc=on"
    else:
        # With pit and pic off a TCG guest hangs; without the RTC it waits one to two seconds.
        accelerator, timers = f"tcg,tb-size={TRANSLATION_CACHE_MIB}", "pit=on,pic=on,rtc=on"
    if _is_microvm(spec):
        # Debian's kernel finds virtio-mmio devices through ACPI only.
        machine = f"microvm,x-option-roms=off,isa-serial=on,{timers},acpi=on"
        firmware = ["-bios", "qboot.rom"]
    else:
        machine, firmware = "q35", []
    # Configuration section and description are of no use to a loader of the same command line.
    options = f"{machine},memory-backend=ram0,dump-guest-core=off,suppress-vmdesc=on"
    plain = ["-global", "migration.send-configuration=off"]
    return ["-accel", accelerator, "-cpu", cpu_model(spec), "-M", options, *firmware, *plain]


def _disk(spec: QemuSpec) -> list[str]:
    words: list[str] = []
    # Explicit nodes: the idea a file has of its backing file is never followed.
    below: str | None = None
    for number, (name, format_, descriptor) in enumerate(_images(spec), start=1):
        own = name == ROOT
        file: dict[str, object] = {"driver": "file", "filename": f"/dev/fdset/{number}"}
        node: dict[str, object] = {"driver": format_, "node-name": name}
        for part in (file, node):
            part |= {"discard": "unmap"} if own else {"read-only": True}
        node["file"] = file
        if below is not None:
            node["backing"] = below
        words += ["-add-fd", f"fd={descriptor},set={number}"]
        words += ["-blockdev", json.dumps(node, separators=(",", ":"))]
        below = name
    words += ["-device", f"virtio-blk-{_bus(spec)},drive={ROOT}"]
    return [*words, *slot_words(all_slots(), _bus(spec))]


def _images(spec: QemuSpec) -> list[tuple[str, str, int]]:
    """Give node name, format and descriptor of what a disk consists of, lowest first."""
    layers = [(f"layer{number}", "qcow2", Descriptor.LAYER + number) for number in range(spec.layers)]
    return [("base", "raw", int(Descriptor.BASE)), *layers, (ROOT, "qcow2", int(Descriptor.OVERLAY))]


def _network(spec: QemuSpec) -> list[str]:
    return [
        *("-netdev", _backend(spec)),
        *("-device", f"virtio-net-{_bus(spec)},netdev=net0,mac={spec.mac}"),
    ]


def _backend(spec: QemuSpec) -> str:
    if spec.wire is Wire.QEMU:
        return _user_network(spec)
    if spec.wire is Wire.PASST:
        return f"stream,id=net0,server=off,addr.type=fd,addr.str={Descriptor.SWITCH:d}"
    return f"tap,id=net0,fd={Descriptor.TAP:d}"


def _user_network(spec: QemuSpec) -> str:
    """Give QEMU's own network: nothing the guest begins leaves it, and its loopback's agent ports lead to the guest.

    Source: qemu-options.hx, ``-netdev user``; ``restrict`` leaves but the forwards given here.
    """
    words = ["user,id=net0,restrict=on,ipv6=off"]
    if spec.guest_cidr and spec.gateway:
        guest, network = IPv4Interface(spec.guest_cidr).ip, IPv4Interface(f"{spec.gateway}/24").network
        words += [f"net={network}", f"host={spec.gateway}", f"dhcpstart={guest}", f"dns={guest + 1}"]
        words += [f"hostfwd=tcp:127.0.0.1:{port}-{guest}:{port}" for port in (CONTROL_PORT, FORWARD_PORT)]
    return ",".join(words)
