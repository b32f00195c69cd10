"""The same agent below its init in a real machine: what test mode cannot show."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.agent.client import AgentError, Closed, Result
from tests.agent.conftest import wait_until
from tests.agent.machine import ADDRESS, BOOT_TIMEOUT_S, Machine, running_machine
from tests.boot import boot_files

from hearth.agent.identity import machine_id
from hearth.wire.frames import FrameType
from hearth.wire.messages import ExecRequest, FileContent, MachineConfig, PathRequest

pytestmark = [pytest.mark.vm, pytest.mark.slow]

STATIC_PROGRAM = "#include <unistd.h>\nint main(int c, char **v) { write(1, v[0], 4); return 40 + c; }\n"


def configuration(**fields: Any) -> MachineConfig:
    usual: dict[str, Any] = {
        "sandbox_id": "sb-1",
        "hostname": "box",
        "token": "",
        "unix_time_ns": 1_900_000_000 * 10**9,
        "entropy": base64.b64encode(bytes(range(64))).decode(),
    }
    return MachineConfig(**usual | fields)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with running_machine(tmp_path_factory.mktemp("machine"), boot_files().rootfs) as running:
        yield running


def test_before_its_configuration_the_agent_wrote_nothing_to_the_root_file_system(machine: Machine) -> None:
    mount_points = [line.split()[1] for line in machine.run("cat /proc/mounts").splitlines()]
    changed = machine.run("find / -xdev -newermt @$(($(stat -c %Y /proc/1) - 5))", user="root").split()
    assert [path for path in changed if path not in mount_points] == []


def test_commands_see_only_the_sandboxs_root_and_run_as_its_user(machine: Machine) -> None:
    assert machine.run("id -u; pwd; ls -d /hearth /init /newroot 2>/dev/null").splitlines() == ["1000", "/home/user"]
    assert machine.run("id -u", user="root") == "0\n"
    mounts = machine.run("cat /proc/mounts")
    assert mounts.startswith("/dev/vda / ext4 ")
    for kind in (
        "proc /proc",
        "sysfs /sys",
        "devtmpfs /dev",
        "devpts /dev/pts",
        "tmpfs /run",
        "cgroup2 /sys/fs/cgroup",
    ):
        assert f"{kind} " in mounts


def test_the_kernel_kills_commands_for_memory_before_the_agent(machine: Machine) -> None:
    assert machine.run("cat /proc/self/oom_score_adj") == "0\n"
    agent = machine.run(
        "for p in /proc/[0-9]*; do grep -q '^PPid:.1$' $p/status && cat $p/oom_score_adj; done", user="root"
    )
    assert "-1000" in agent.split()


def test_a_terminal_works_and_belongs_to_the_user(machine: Machine) -> None:
    wire, _ = machine.client.session("sh", "-c", "tty; stat -c %U $(tty); stty size </dev/tty", tty=True)
    with wire:
        assert Result(wire).stdout.split() == [b"/dev/pts/0", b"user", b"24", b"80"]


def test_orphans_are_reaped_and_no_exit_code_is_stolen(machine: Machine) -> None:
    for code in range(20):
        script = f"(sleep 0.05; exit 9) >/dev/null 2>&1 & exit {code}"
        assert machine.client.run("sh", "-c", script).exit_code == code

    def zombies() -> int:
        return int(machine.run("cat /proc/[0-9]*/stat | grep -c ') Z ' ; true"))

    wait_until(lambda: zombies() == 0, "orphans reaped")


def test_a_client_that_leaves_takes_its_command_with_it(machine: Machine) -> None:
    with machine.client.start(ExecRequest(argv=["sleep", "4321"])):
        wait_until(lambda: "sleep 4321" in machine.run("ps -eo args"), "command runs")
    wait_until(lambda: "sleep 4321" not in machine.run("ps -eo args"), "command killed")


def test_the_configuration_gives_the_machine_its_identity_any_number_of_times(machine: Machine) -> None:
    for name, seconds in (("first", 1_900_000_000), ("second", 1_950_000_000)):
        config = configuration(
            sandbox_id=name,
            hostname=name,
            unix_time_ns=seconds * 10**9,
            dns=["192.0.2.1"],
            files={
                "/home/user/.secret": FileContent(content="eA==", mode="0600"),
                "/tmp/shared": FileContent(content=""),
                "/etc/new/file": FileContent(content=""),
            },
        )
        assert machine.client.ask(FrameType.CONFIGURE, config, FrameType.CONFIGURED) == {"status": "ok"}
        script = "hostname; cat /etc/hostname /etc/machine-id /etc/resolv.conf; getent hosts $(hostname); date +%s"
        lines = machine.run(script).splitlines()
        assert lines[:4] == [name, name, machine_id(name), "nameserver 192.0.2.1"]
        assert lines[4].startswith("127.0.1.1")
        assert 0 <= int(lines[5]) - seconds < 600
    owners = machine.run("stat -c '%U %a' /home/user/.secret /tmp/shared /etc/new /etc/new/file").splitlines()
    assert owners == ["user 600", "user 644", "root 755", "root 644"]


def test_nobody_inside_the_machine_can_use_up_the_agents_connections(machine: Machine) -> None:
    script = f"""
import socket
kept = []
for target, source in ("127.0.0.1", None), ("{ADDRESS}", None), ("{ADDRESS}", ("127.0.0.9", 0)), ("127.0.0.9", None):
    for port in 1024, 1025:
        for _ in range(60):
            kept.append(socket.create_connection((target, port), 60, source))
            assert kept[-1].recv(1) == b""
print(len(kept), flush=True)
input()
"""
    with machine.client.start(ExecRequest(argv=["python3", "-c", script])) as wire:
        wire.socket.settimeout(BOOT_TIMEOUT_S)
        assert wire.expect(FrameType.STDOUT) == b"480\n"
        assert machine.client.run("true").exit_code == 0
        wire.send(FrameType.STDIN_EOF)


def test_a_dead_agent_is_started_again_with_its_token_and_one_init_script(machine: Machine) -> None:
    config = configuration(init="exec sleep 7654", token="kept", env={"A": "1"})
    assert machine.client.ask(FrameType.CONFIGURE, config, FrameType.CONFIGURED) == {"status": "ok"}
    machine.client.token = "kept"

    def init_scripts() -> int:
        return machine.run("ps -eo args", user="root").splitlines().count("sleep 7654")

    wait_until(lambda: init_scripts() == 1, "init script runs")
    kill = "kill -9 $(grep -l '^PPid:.1$' /proc/[0-9]*/status | cut -d/ -f3 | sort -n | xargs -n1 sh -c "
    kill += "'grep -q init /proc/$0/cmdline && echo $0')"
    with pytest.raises((Closed, ConnectionError)):
        machine.client.run("sh", "-c", kill, user="root")
    machine.wait_console(b"agent listening", 2)
    assert machine.run("echo $A") == "1\n"
    wait_until(lambda: init_scripts() == 1, "one init script runs")


def test_power_off_ends_the_machine_with_a_clean_disk(tmp_path: Path) -> None:
    with running_machine(tmp_path, boot_files().rootfs) as machine:
        machine.run("sleep 1000 >/dev/null 2>&1 & echo kept > ~/file")
        assert machine.client.ask(FrameType.POWER_OFF_REQ, None, FrameType.POWER_OFF_RESP) == {"status": "ok"}
        assert machine.process.wait(BOOT_TIMEOUT_S) == 0
    raw = tmp_path / "disk.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", tmp_path / "disk.qcow2", raw], check=True)
    told = subprocess.run(["dumpe2fs", "-h", raw], capture_output=True, check=True).stdout.decode()
    assert "needs_recovery" not in told
    assert "Filesystem state:         clean" in told
    content = subprocess.run(["debugfs", "-R", "cat /home/user/file", raw], capture_output=True, check=True).stdout
    assert content == b"kept\n"


def test_a_root_file_system_of_one_static_program_is_enough(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "a.c").write_text(STATIC_PROGRAM)
    subprocess.run(["gcc", "-static", "-o", root / "prog", tmp_path / "a.c"], check=True)
    disk = tmp_path / "root.ext4"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, disk, "16M"], check=True, stdout=subprocess.DEVNULL)
    with running_machine(tmp_path, disk) as machine:
        client = machine.client
        assert client.ask(FrameType.CONFIGURE, configuration(init="true"), FrameType.CONFIGURED) == {"status": "ok"}
        result = client.run("/prog", "x")
        assert (result.stdout, result.exit_code) == (b"/pro", 42)
        assert client.run("/prog", user="root").exit_code == 41
        wire, _ = client.session("/prog", tty=True)
        with wire:
            assert Result(wire).exit_code == 41
        with pytest.raises(AgentError, match=r"^start: sh: No such file"):
            machine.run("true")
        names = client.ask(FrameType.FILE_LS_REQ, PathRequest(path="/"), FrameType.FILE_LS_RESP)
        assert [entry["name"] for entry in names] == ["lost+found", "prog"]
