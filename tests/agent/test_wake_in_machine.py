"""A machine that is told it lives again: who it is, what it forgets, and what it does when that cannot be done."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.agent.client import AgentError, Client, Result, Wire
from tests.agent.conftest import wait_until
from tests.agent.machine import HOST_SEEN_FROM_GUEST, Machine, running_machine
from tests.agent.test_machine import configuration
from tests.boot import boot_files

from hearth.agent.identity import machine_id
from hearth.wire import frames
from hearth.wire.frames import FrameType
from hearth.wire.messages import ExecRequest, FileContent, FileWriteRequest

pytestmark = [pytest.mark.vm, pytest.mark.slow]

PROGRAM = """
import os, select, signal, socket, sys

def told(number, frame):
    with open("/run/hearth/generation") as file:
        print("signal", number, file.read().split()[0], flush=True)

signal.signal(signal.SIGUSR1, told)
outside = [socket.create_connection((host, int(sys.argv[2]))) for host in (sys.argv[1], "::ffff:" + sys.argv[1])]
inside = []
for family, bound, host in (
    (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    (socket.AF_INET, "127.0.0.1", "::ffff:127.0.0.1"),
    (socket.AF_INET6, "::1", "::1"),
):
    listener = socket.create_server((bound, 0), family=family)
    inside.append((socket.create_connection((host, listener.getsockname()[1])), listener.accept()[0]))
with open(f"/run/hearth/watchers/{os.getpid()}", "w") as file:
    file.write(str(signal.SIGUSR1.value))
print("ready", os.getpid(), flush=True)
for one in outside:
    try:
        print("outside", one.recv(10), flush=True)
    except OSError as error:
        print("outside", error.errno, flush=True)
for one, accepted in inside:
    one.sendall(b"kept")
    print("inside", accepted.recv(10), flush=True)
while True:
    signal.pause()
"""
ECONNABORTED = 103
FILL = """
import errno, os
descriptor = os.open("/fill", os.O_WRONLY | os.O_CREAT)
at, piece = 0, 1 << 30
while piece >= 4096:
    try:
        os.posix_fallocate(descriptor, at, piece)
        at += piece
    except OSError as error:
        assert error.errno == errno.ENOSPC
        piece //= 2
os.fsync(descriptor)
print("full")
"""
KEYGEN = "#!/bin/sh\necho made >> /etc/ssh/made; echo new > /etc/ssh/ssh_host_ed25519_key\n"
SERVER = "import signal, time; signal.signal(1, lambda *_: print('reload', flush=True)); print('up', flush=True)\n"
SERVER += "while True: time.sleep(100)\n"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with running_machine(tmp_path_factory.mktemp("awake"), boot_files().rootfs) as running:
        yield running


_generations = iter(range(1, 1000))


def wake(machine: Machine, generation: int | None = None, **fields: Any) -> Any:
    """Configure for the next life and use its token, unless that failed."""
    generation = next(_generations) if generation is None else generation
    fields = {"unix_time_ns": time.time_ns(), "token": f"token-{generation}"} | fields
    config = configuration(generation=generation, **fields)
    told = machine.client.ask(FrameType.CONFIGURE, config, FrameType.CONFIGURED)
    if told == {"status": "ok"}:
        machine.client.token = config.token or None
    return told


def next_line(wire: Wire) -> list[str]:
    return wire.read_until(lambda data: data.endswith(b"\n")).decode().split()


def test_activity_tells_a_machines_work_and_memory(machine: Machine) -> None:
    def told() -> Any:
        return machine.client.ask(FrameType.ACTIVITY_REQ, None, FrameType.ACTIVITY_RESP)

    before = told()
    assert 150 < before["memory"]["total_mib"] <= 256
    assert 0 < before["memory"]["available_mib"] < before["memory"]["total_mib"]
    for _ in range(20):
        asked = told()
    assert asked["cpu_ms"] - before["cpu_ms"] < 200  # asking is not use
    machine.run("n=0; while [ $n -lt 200000 ]; do n=$((n+1)); done")
    assert told()["cpu_ms"] - asked["cpu_ms"] > 200


def test_a_new_life_has_another_name_time_token_and_machine_id(machine: Machine) -> None:
    machine.run("mkdir -p /var/lib/dbus; echo old > /var/lib/dbus/machine-id", user="root")
    for name, given in (("first", None), ("second", "0123456789abcdef" * 2)):
        generation = next(_generations)
        seconds = 1_900_000_000 + generation
        old_token = machine.client.token
        told = wake(
            machine,
            generation,
            sandbox_id=name,
            hostname=name,
            machine_id=given,
            unix_time_ns=seconds * 10**9,
            env={"LIFE": name},
        )
        assert told == {"status": "ok"}
        script = "hostname; cat /etc/hostname /etc/machine-id /var/lib/dbus/machine-id /run/hearth/generation; date +%s"
        lines = machine.run(f"{script}; echo $LIFE").splitlines()
        identity = given or machine_id(name)
        assert lines[:5] == [name, name, identity, identity, f"{generation} {seconds}"]
        assert 0 <= int(lines[5]) - seconds < 600
        assert lines[6] == name
        with pytest.raises(AgentError, match=r"^auth required$"):
            with_token(machine, old_token or "none").run("true")


def with_token(machine: Machine, token: str) -> Client:
    return Client(machine.client.address, machine.client.forward_address, token)


def test_a_connection_that_waited_with_the_old_token_is_not_served(machine: Machine) -> None:
    wake(machine)
    with machine.client.connect() as waiting:
        machine.run("true")
        wake(machine)
        waiting.request(FrameType.EXEC_REQ, ExecRequest(argv=["true"]))
        with pytest.raises(AgentError, match=r"^auth required$"):
            waiting.read()


def test_programs_are_signalled_and_connections_to_others_end_once_a_life(machine: Machine) -> None:
    assert wake(machine) == {"status": "ok"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        argv = ["python3", "-c", PROGRAM, HOST_SEEN_FROM_GUEST, str(listener.getsockname()[1])]
        with machine.client.start(ExecRequest(argv=argv)) as program:
            peer, mapped = listener.accept()[0], listener.accept()[0]
            with peer, mapped:
                ready, pid = next_line(program)
                generation = next(_generations)
                assert wake(machine, generation) == {"status": "ok"}
                heard = program.read_until(lambda data: data.count(b"\n") == 6).decode().splitlines()
                assert sorted(heard) == sorted(
                    [f"signal 10 {generation}"] + [f"outside {ECONNABORTED}"] * 2 + ["inside b'kept'"] * 3
                )
                assert wake(machine, generation) == {"status": "ok"}
                assert wake(machine) == {"status": "ok"}
                assert next_line(program)[:2] == ["signal", "10"]  # once more, for the second new life only
                program.socket.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    program.read()
        wait_until(lambda: not machine.run(f"ps -p {pid} -o pid=").strip(), "program ended")
        assert ready == "ready"
    assert wake(machine) == {"status": "ok"}
    assert machine.run("ls /run/hearth/watchers") == ""  # what has ended is forgotten


def test_nobody_has_a_program_signalled_that_is_not_theirs(machine: Machine) -> None:
    assert wake(machine) == {"status": "ok"}
    wire, info = machine.client.session("sh", "-c", "echo $$; exec sleep 5000", user="root")
    with wire:
        (pid,) = next_line(wire)
        script = f"cd /run/hearth/watchers; echo 9 > {pid}; echo 9 > 1; ln -s /etc/passwd 2; mkfifo 3; "
        script += (
            "mkdir 4; echo 99 > $$; echo x > 5; echo 9 > 99999999999; echo 9 > -1; touch 6; yes 9 | head -c 999 > 7"
        )
        machine.run(script)
        assert wake(machine) == {"status": "ok"}
        assert machine.run(f"ps -p {pid} -o args=", user="root") == "sleep 5000\n"
        machine.run(f"rm -rf /run/hearth/watchers/*; echo 15 > /run/hearth/watchers/{pid}", user="root")
        assert wake(machine) == {"status": "ok"}
        assert frames.parse_exit(wire.expect(FrameType.EXIT)) == 128 + 15  # root's own registration counts
    assert info.running


def test_another_machine_has_other_ssh_host_keys_and_its_server_reads_them(machine: Machine) -> None:
    assert wake(machine, sandbox_id="one") == {"status": "ok"}
    machine.run(
        "mkdir -p /etc/ssh; cd /etc/ssh; for kind in rsa ed25519; do echo old > ssh_host_${kind}_key; "
        "echo old > ssh_host_${kind}_key.pub; done; echo kept > sshd_config; "
        "cp $(readlink -f /usr/bin/python3) /bin/sshd",
        user="root",
    )
    files = {"/usr/local/bin/ssh-keygen": FileContent(content=base64_of(KEYGEN), mode="0755")}
    with machine.client.start(ExecRequest(argv=["/bin/sshd", "-c", SERVER], user="root")) as server:
        assert next_line(server) == ["up"]
        machine.run("pidof sshd > /run/sshd.pid", user="root")
        assert wake(machine, sandbox_id="one", files=files) == {"status": "ok"}
        assert machine.run("cat /etc/ssh/ssh_host_rsa_key", user="root") == "old\n"  # the same machine keeps its keys
        assert wake(machine, sandbox_id="two") == {"status": "ok"}
        assert next_line(server) == ["reload"]
    assert machine.run("cd /etc/ssh; ls; cat made ssh_host_ed25519_key", user="root").split() == [
        *("made", "ssh_host_ed25519_key", "sshd_config"),
        *("made", "new"),
    ]
    machine.run("printf '#!/bin/sh\\nexit 7\\n' > /usr/local/bin/ssh-keygen", user="root")
    told = wake(machine, sandbox_id="three")
    assert told == {"status": "error", "message": "SSH host keys: internal: ssh-keygen -A ended with 7"}
    assert wake(machine, sandbox_id="three") == {"status": "ok"}  # there is none left to be copied


def base64_of(text: str) -> str:
    return subprocess.run(["base64", "-w0"], input=text.encode(), capture_output=True, check=True).stdout.decode()


def test_a_machine_that_could_not_be_configured_runs_nothing_until_it_is(machine: Machine) -> None:
    assert wake(machine, env={"LIFE": "good"}) == {"status": "ok"}
    token = machine.client.token
    told = wake(machine, token="never", files={"/proc/nowhere/file": FileContent(content="")})
    assert told["status"] == "error"
    assert told["message"].startswith("files: ")
    assert machine.client.token == token
    for attempt in (machine.client.run, lambda _: machine.client.session("true")):
        with pytest.raises(AgentError, match=r"^internal: the machine's last configuration failed"):
            attempt("true")
    with pytest.raises(AgentError, match=r"^internal: the machine's last configuration failed"):
        machine.client.ask(FrameType.PORTS_REQ, None, FrameType.PORTS_RESP)
    assert "cpu_ms" in machine.client.ask(FrameType.ACTIVITY_REQ, None, FrameType.ACTIVITY_RESP)
    assert wake(machine) == {"status": "ok"}
    assert machine.client.run("true").exit_code == 0


def test_an_agent_that_dies_between_two_identities_leaves_nobody_to_run_commands(machine: Machine) -> None:
    assert wake(machine, init="exec sleep 4321") == {"status": "ok"}
    killer = machine.client.start(ExecRequest(argv=["sh", "-c", "echo ready; read x; kill -9 $PPID"], user="root"))
    with killer:
        assert next_line(killer) == ["ready"]
        assert wake(machine, files={"/proc/nowhere/file": FileContent(content="")})["status"] == "error"
        killer.send(FrameType.STDIN, b"\n")
        machine.wait_console(b"agent listening", 2)
    for program in ("true", "sh"):
        with pytest.raises(AgentError, match=r"^internal: the machine's last configuration failed"):
            machine.client.run(program)
    assert wake(machine) == {"status": "ok"}
    assert "sleep 4321" not in machine.run("ps -eo args", user="root")
    assert wake(machine, init="exec sleep 4321") == {"status": "ok"}
    wait_until(lambda: "sleep 4321" in machine.run("ps -eo args", user="root"), "init script runs again")


def test_whatever_starts_a_program_leaves_it_to_the_memory_killer(machine: Machine) -> None:
    score = "cat /proc/self/oom_score_adj"
    assert wake(machine) == {"status": "ok"}
    found = [machine.run(score)]
    for fields in ({"tty": True}, {"tty": False}):
        wire, _ = machine.client.session("sh", "-c", f"sleep 0.1; {score}", **fields)
        with wire:
            found.append(Result(wire).stdout.decode())
    machine.client.run("sh", "-c", score, detach=True, output_file="/tmp/detached")
    wait_until(lambda: bool(machine.run("cat /tmp/detached")), "detached command ended")
    found.append(machine.run("cat /tmp/detached"))
    assert [text.split() for text in found] == [["0"]] * 4


def test_a_disk_that_cannot_be_written_fails_the_self_check(machine: Machine) -> None:
    script = "mount -o remount,ro /; echo done; read x; mount -o remount,rw /; echo undone"
    with machine.client.start(ExecRequest(argv=["sh", "-c", script], user="root")) as breaker:
        assert next_line(breaker) == ["done"]
        told = wake(machine)
        assert told["status"] == "error"
        assert "Read-only file system" in told["message"]
        breaker.send(FrameType.STDIN, b"\n")
        assert next_line(breaker) == ["undone"]
    assert wake(machine) == {"status": "ok"}


def test_a_full_disk_keeps_nobody_from_waking_as_who_they_are(machine: Machine) -> None:
    assert wake(machine) == {"status": "ok"}
    assert machine.run(f"python3 -c '{FILL}'", user="root") == "full\n"
    try:
        with pytest.raises(AgentError, match=r"^no space: "):
            request = FileWriteRequest(path="/more", size=1_000_000)
            machine.client.ask(FrameType.FILE_WRITE_REQ, request, FrameType.FILE_WRITE_RESP)
        assert wake(machine) == {"status": "ok"}
        assert wake(machine, hostname="another") == {"status": "ok"}
        assert machine.run("cat /etc/hostname") == "another\n"
        told = wake(machine, files={"/more": FileContent(content=base64_of("x" * 500_000))})
        assert told["status"] == "error"
        assert told["message"].startswith("files: no space: /more")
        assert wake(machine) == {"status": "ok"}
    finally:
        machine.run("rm -f /fill", user="root")


def test_a_name_is_written_into_its_file_unless_that_is_somebody_elses_too(machine: Machine) -> None:
    assert wake(machine) == {"status": "ok"}
    before = machine.run("ln -f /etc/hosts /etc/hosts.too; stat -c %i /etc/hostname /etc/hosts", user="root").split()
    assert wake(machine, hostname="renamed-to-something-longer") == {"status": "ok"}
    assert wake(machine, hostname="third") == {"status": "ok"}
    after = machine.run("stat -c %i /etc/hostname /etc/hosts; cat /etc/hostname", user="root")
    hostname_file, hosts_file, hostname = after.split()
    assert (hostname_file, hostname) == (before[0], "third")
    assert hosts_file != before[1]
    assert "third" in machine.run("cat /etc/hosts")
    assert "renamed" not in machine.run("cat /etc/hosts /etc/hosts.too; rm /etc/hosts.too", user="root")
    assert wake(machine) == {"status": "ok"}


def test_a_woken_machine_is_told_the_time_with_its_first_request(machine: Machine) -> None:
    assert wake(machine) == {"status": "ok"}
    for seconds, entropy in ((2_000_000_000, b""), (1_950_000_000, bytes(range(64)))):
        with machine.client.connect() as wire:
            wire.socket.sendall(
                frames.encode_time_sync(seconds * 10**9, entropy)
                + frames.encode(FrameType.EXEC_REQ, b'{"argv":["date","+%s"]}')
            )
            assert 0 <= int(wire.expect(FrameType.STDOUT)) - seconds < 600
    with machine.client.connect() as wire:
        wire.socket.sendall(frames.encode_time_sync(time.time_ns()) * 2)
        with pytest.raises(AgentError, match=r"^unexpected frame type 0x7c$"):
            wire.read()
    assert wake(machine) == {"status": "ok"}


def test_what_eats_all_memory_is_killed_and_named_and_the_agent_is_not(machine: Machine) -> None:
    assert machine.client.ask(FrameType.LAST_WORDS_REQ, None, FrameType.LAST_WORDS_RESP).get("oom_kills") is None
    machine.run("echo '<3>Out of memory: Killed process 1 (liar) total-vm:1kB' > /dev/kmsg", user="root")
    agent = machine.run("echo $PPID")
    eater = "held = []\nwhile True: held.append(b'x' * 1_000_000)"
    for user in (None, "root"):
        script = '(exec -a eater python3 -c "$0" & wait $!)'
        assert machine.client.run("bash", "-c", script, eater, user=user).exit_code == 128 + 9
    told = machine.client.ask(FrameType.LAST_WORDS_REQ, None, FrameType.LAST_WORDS_RESP)
    assert [kill["process"] for kill in told["oom_kills"]] == ["python3", "python3"]
    assert 0 < told["oom_kills"][0]["seconds"] < told["oom_kills"][1]["seconds"] <= told["uptime_sec"]
    assert machine.run("echo $PPID") == agent
    scores = machine.run("cat /proc/self/oom_score_adj; (cat /proc/self/oom_score_adj) & wait", user="root")
    assert scores.split() == ["0", "0"]
