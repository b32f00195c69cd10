"""QEMU's command line is a pure function: these are its golden lines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hearth.engine.qemu.command import DRIVES, QemuSpec, Wire, build, kernel_parameters, shape
from hearth.engine.qemu.slots import all_slots, slot_words
from hearth.model import Accelerator

EMULATED = QemuSpec(
    name="hearth-sb-1",
    accelerator=Accelerator.TCG,
    cpus=2,
    memory_mib=512,
    tsc_khz=2_300_000,
    guest_cidr="172.16.0.2/30",
    gateway="172.16.0.1",
    mac="02:00:00:00:00:02",
)
VIRTUALISED = replace(EMULATED, accelerator=Accelerator.KVM)

GOLDEN = """
qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -name hearth-sb-1
-accel tcg,tb-size=64 -cpu Nehalem,+arat
-M
microvm,x-option-roms=off,isa-serial=on,pit=on,pic=on,rtc=on,acpi=on,memory-backend=ram0,dump-guest-core=off,suppress-vmdesc=on
-bios qboot.rom -global migration.send-configuration=off -smp 2 -object memory-backend-ram,id=ram0,size=512M -m 512
-kernel /proc/self/fd/8 -initrd /proc/self/fd/9 -append @kernel
-chardev socket,id=qmp,fd=3,server=on,wait=off -mon chardev=qmp,mode=control
-chardev socket,id=console,fd=4,server=on,wait=off -serial chardev:console
-object rng-random,id=rng0,filename=/dev/urandom -device virtio-rng-device,rng=rng0
-add-fd fd=5,set=1 -blockdev @base -add-fd fd=6,set=2 -blockdev @root -device virtio-blk-device,drive=root @slots
-netdev tap,id=net0,fd=7 -device virtio-net-device,netdev=net0,mac=02:00:00:00:00:02
-sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
"""
KERNEL = (
    "quiet console=ttyS0 reboot=t panic=-1 8250.nr_uarts=1 random.trust_cpu=on cryptomgr.notests init_on_free=1 "
    "rcupdate.rcu_expedited=1 "
    "no_timer_check mitigations=off psi=0 lsm=landlock,yama,bpf "
    "tsc=reliable tsc_early_khz=2300000 lpj=9200000 "
    "hearth.root=/dev/vda hearth.rootfs=ext4 hearth.ip=172.16.0.2/30 hearth.gw=172.16.0.1"
)
BASE = (
    '{"driver":"raw","node-name":"base","read-only":true,'
    '"file":{"driver":"file","filename":"/dev/fdset/1","read-only":true}}'
)
LAYER = (
    '{"driver":"qcow2","node-name":"layer1","read-only":true,'
    '"file":{"driver":"file","filename":"/dev/fdset/3","read-only":true},"backing":"layer0"}'
)
ROOT = (
    '{"driver":"qcow2","node-name":"root","discard":"unmap",'
    '"file":{"driver":"file","filename":"/dev/fdset/2","discard":"unmap"},"backing":"base"}'
)


def test_an_emulated_machine_has_the_golden_command_line() -> None:
    long_words = {"@kernel": KERNEL, "@base": BASE, "@root": ROOT}
    lines = {"@slots": slot_words(all_slots(), "device")}
    golden = [each for word in GOLDEN.split() for each in lines.get(word, [long_words.get(word, word)])]

    assert build("qemu-system-x86_64", EMULATED) == golden


def test_a_virtualised_machine_has_the_hosts_processor_and_no_emulated_timers() -> None:
    line = " ".join(build("qemu-system-x86_64", VIRTUALISED))

    assert "-accel kvm -cpu host" in line
    assert "pit=off,pic=off,rtc=on" in line
    assert "tsc_early_khz" not in line
    assert "mitigations=off" not in line


def test_without_the_counters_speed_an_emulated_machine_is_one_that_calibrates_safely() -> None:
    line = " ".join(build("qemu-system-x86_64", replace(EMULATED, tsc_khz=None)))

    assert "-M q35," in line
    assert "microvm" not in line
    assert "-device virtio-blk-pci,drive=root" in line
    assert "-device virtio-net-pci," in line
    assert "lpj=" not in line


@pytest.mark.parametrize("spec", [EMULATED, VIRTUALISED, replace(EMULATED, tsc_khz=None)])
def test_no_command_line_names_a_file_of_a_machine(spec: QemuSpec) -> None:
    paths = [word for word in build("qemu-system-x86_64", spec) if "/" in word and "hearth.root" not in word]

    assert all("/dev/fdset/" in path or "/proc/self/fd/" in path or "/dev/urandom" in path for path in paths)


def test_a_machine_without_disk_and_network_has_neither() -> None:
    line = " ".join(build("qemu-system-x86_64", replace(EMULATED, disk=False, mac=None, guest_cidr=None)))

    assert "blockdev" not in line
    assert "netdev" not in line
    assert "hearth.root" not in line
    assert "hearth.ip" not in line


def test_a_restored_machine_maps_its_memory_privately_and_waits_for_its_state_without_a_kernel() -> None:
    words = build("qemu-system-x86_64", replace(EMULATED, restored=True))

    assert "memory-backend-file,id=ram0,size=512M,mem-path=/proc/self/fd/10,share=off" in words
    assert words[words.index("-S") :][:3] == ["-S", "-incoming", "defer"]
    assert not {"-kernel", "-initrd", "-append"} & set(words)


def test_layers_lie_between_the_root_file_system_and_the_machines_own_disk() -> None:
    words = build("qemu-system-x86_64", replace(EMULATED, layers=2))

    assert LAYER in words
    assert ROOT.replace("/dev/fdset/2", "/dev/fdset/4").replace('"base"', '"layer1"') in words
    added = [words[number + 1] for number, word in enumerate(words) if word == "-add-fd"]
    assert added == ["fd=5,set=1", "fd=16,set=2", "fd=17,set=3", "fd=6,set=4"]


def test_a_clone_has_the_devices_of_its_template_in_their_order() -> None:
    def devices(spec: QemuSpec) -> list[str]:
        words = build("qemu-system-x86_64", spec)
        return [words[number + 1] for number, word in enumerate(words) if word in ("-device", "-M", "-cpu", "-smp")]

    assert devices(replace(EMULATED, restored=True, layers=3)) == devices(EMULATED)


def test_loops_per_jiffy_follow_the_counter() -> None:
    assert "lpj=4000000 " in kernel_parameters(replace(EMULATED, tsc_khz=1_000_000))


def test_the_drives_that_a_snapshot_names_are_those_of_the_command_line_in_its_order() -> None:
    words = build("qemu-system-x86_64", EMULATED)
    drives = [word.split("drive=")[1].split(",")[0] for word in words if "drive=" in word]
    assert tuple(drives) == DRIVES


def test_with_user_mode_networking_the_guest_begins_nothing_and_the_agents_ports_are_on_the_loopback() -> None:
    words = build("qemu", replace(EMULATED, wire=Wire.QEMU))
    expected = (
        "user,id=net0,restrict=on,ipv6=off,net=172.16.0.0/24,host=172.16.0.1,dhcpstart=172.16.0.2,dns=172.16.0.3,"
        "hostfwd=tcp:127.0.0.1:1024-172.16.0.2:1024,hostfwd=tcp:127.0.0.1:1025-172.16.0.2:1025"
    )
    assert words[words.index("-netdev") + 1] == expected


def test_a_state_taken_with_user_mode_networking_is_of_another_shape() -> None:
    assert shape(replace(EMULATED, wire=Wire.QEMU)) != shape(EMULATED)
