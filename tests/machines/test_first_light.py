"""The main job on real machines: a kernel of its own, commands, their ends, and nothing left."""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import time
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from tests.server.daemon import RunningDaemon, run_cli

from hearth.errors import StartFailed, TimedOut
from hearth.sdk.client import Client, Sandbox

GONE_S = 60.0


def vmm_of(sandbox: Sandbox) -> int:
    (pid,) = vmms_of(sandbox.id)
    return pid


def vmms_of(sandbox_id: str) -> list[int]:
    """Every process that bears the sandbox's id as a VMM's name does."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if any(word.startswith(b"hearth-") and word.endswith(sandbox_id.encode()) for word in words):
                found.append(int(entry.name))
    return found


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_a_sandbox_has_a_kernel_of_its_own(sandbox: Sandbox) -> None:
    release = sandbox.run(["uname", "-r"]).check().stdout.strip()

    assert release != platform.release()
    assert "cloud" in release or "virtual" in release


def test_a_sandbox_is_named_and_its_clock_is_right(sandbox: Sandbox) -> None:
    asked = int(time.time())
    result = sandbox.run(["sh", "-c", "hostname; date +%s"]).check()
    name, seconds = result.stdout.split()

    assert name == "shared"
    assert asked - 5 < int(seconds) < time.time() + 5


def test_programs_run_and_their_ends_are_told_apart(sandbox: Sandbox) -> None:
    assert sandbox.run(["python3", "-c", "print(6 * 7)"]).stdout == "42\n"
    assert sandbox.run(["sh", "-c", "echo out; echo err >&2; exit 7"]).exit_code == 7
    assert sandbox.run(["sh", "-c", "kill -9 $$"]).exit_code == 137
    with pytest.raises(StartFailed, match="No such file"):
        sandbox.run(["/no/such/program"])
    with pytest.raises(StartFailed, match=r"[Pp]ermission"):
        sandbox.run(["/etc/passwd"])


def test_commands_run_as_the_sandbox_user_below_its_root_file_system(sandbox: Sandbox) -> None:
    out = sandbox.run(["sh", "-c", "id -u; pwd; ls /hearth /init 2>&1; grep -c hearth /proc/1/cmdline"]).stdout

    assert out.splitlines()[0] == "1000"
    assert "No such file" in out


def test_input_reaches_the_command_and_output_streams_as_it_comes(sandbox: Sandbox) -> None:
    assert sandbox.run(["cat"], stdin="räksmörgås\n").stdout == "räksmörgås\n"

    waits = "echo one; while ! test -e /tmp/go-on; do sleep 0.05; done; rm /tmp/go-on; echo two"
    with sandbox.stream(["sh", "-c", waits]) as running:
        arriving = iter(running)
        assert next(arriving).data == b"one\n"
        sandbox.run(["touch", "/tmp/go-on"]).check()
        assert [output.data for output in arriving] == [b"two\n"]


def test_a_command_that_takes_too_long_is_killed_with_its_children(sandbox: Sandbox) -> None:
    with pytest.raises(TimedOut):
        sandbox.run(["sh", "-c", "sleep 1234 & sleep 1234"], timeout_sec=1)

    listing = ["sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"]
    deadline = time.monotonic() + GONE_S
    while "sleep 1234" in sandbox.run(listing).stdout:
        assert time.monotonic() < deadline, "they were not killed"


def test_the_vmm_has_no_rights_of_its_own(sandbox: Sandbox) -> None:
    status = status_of(vmm_of(sandbox))

    assert all(int(number) > 1_000_000_000 for number in status["Uid"].split() + status["Gid"].split())
    assert status["Groups"] == ""
    assert all(int(status[name], 16) == 0 for name in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"))
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_the_vmm_lives_in_the_machines_own_network_namespace(sandbox: Sandbox) -> None:
    assert Path(f"/proc/{vmm_of(sandbox)}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()


def test_no_two_vmms_share_a_user(client: Client, sandbox: Sandbox) -> None:
    with client.create(name="neighbour") as other:
        assert status_of(vmm_of(sandbox))["Uid"] != status_of(vmm_of(other))["Uid"]


def test_no_secret_and_no_path_of_a_tenant_stands_in_the_command_line(house: RunningDaemon, sandbox: Sandbox) -> None:
    line = Path(f"/proc/{vmm_of(sandbox)}/cmdline").read_text()

    assert str(house.data.machines) not in line
    assert house.token not in line


def test_the_host_has_no_way_into_a_machines_network(sandbox: Sandbox) -> None:
    assert sandbox.run(["true"]).exit_code == 0

    guests = ip_network("172.16.0.0/30")
    routes = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    destinations = [ip_address(bytes.fromhex(route[1])[::-1]) for route in routes]
    assert not any(destination in guests for destination in destinations)
    assert "tap0" not in [name for _, name in socket.if_nameindex()]


def test_the_guest_reaches_nothing(sandbox: Sandbox) -> None:
    script = """
import socket
for address in ("169.254.169.254", "203.0.113.1", "172.16.0.1", "127.0.0.1"):
    try:
        socket.create_connection((address, 80), timeout=2)
        print("reached", address)
    except OSError:
        pass
"""
    assert sandbox.run(["python3", "-c", script]).check().stdout == ""


def test_two_machines_differ_in_name_and_random_numbers(client: Client, sandbox: Sandbox) -> None:
    command = ["sh", "-c", "hostname; od -An -N16 -tx1 /dev/urandom"]
    with client.create(name="second") as other:
        assert set(sandbox.run(command).stdout.split("\n")[:2]).isdisjoint(other.run(command).stdout.split("\n")[:2])


def test_destroying_leaves_no_process_namespace_directory_or_cgroup(house: RunningDaemon, client: Client) -> None:
    sandbox = client.create(name="shortlived")
    traces = traces_of(house, sandbox.id)
    assert traces != []
    sandbox.destroy()

    assert traces_of(house, sandbox.id) == []


def traces_of(house: RunningDaemon, sandbox_id: str) -> list[str]:
    """Everything on this host that bears the sandbox's id."""
    traces = [f"process {pid}" for pid in vmms_of(sandbox_id)]
    places = [house.data.machines, Path("/run/netns"), Path("/sys/fs/cgroup")]
    for place in places:
        traces += [str(Path(base) / name) for base, names, _ in os.walk(place) for name in names if sandbox_id in name]
    return traces


def test_the_command_line_forwards_output_and_exit_code(house: RunningDaemon, sandbox: Sandbox) -> None:
    done = run_cli(house.environment, "exec", sandbox.name, "--", "sh", "-c", "cat; echo err >&2; exit 9", stdin=b"in")

    assert (done.returncode, done.stdout, done.stderr) == (9, b"in", b"err\n")
