"""Frozen disks of a real machine: proven by who waits, by what a copy of them holds, and by who thaws."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.agent.client import AgentError, Closed, Result, Wire
from tests.agent.conftest import wait_until
from tests.agent.machine import Machine, running_machine
from tests.agent.test_machine import configuration
from tests.boot import boot_files

from hearth.wire import frames
from hearth.wire.frames import FrameType
from hearth.wire.messages import ExecRequest, FileWriteRequest, FreezeRequest, VolumeMount

pytestmark = [pytest.mark.vm, pytest.mark.slow]

WRITER = """
import os, time
number = 0
while True:
    number += 1
    with open(os.path.expanduser("~/ticks"), "w") as file:
        file.write(str(number))
        file.flush()
        os.fsync(file.fileno())
    print(number, flush=True)
    time.sleep(0.02)
"""
THAWED_S = 4.0
QUIET_S = 1.0
"""So long nothing may be heard of a writer whose disk is frozen; it would say fifty things."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    directory = tmp_path_factory.mktemp("frozen")
    volume = directory / "volume.ext4"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", volume, "32M"], check=True, stdout=subprocess.DEVNULL)
    with running_machine(directory, boot_files().rootfs, volume=volume) as running:
        yield running


@pytest.fixture(autouse=True)
def thawed(machine: Machine) -> Iterator[None]:
    """Give every test a configured machine whose disks are thawed, and see that it leaves one."""
    config = configuration(unix_time_ns=time.time_ns(), volumes=[VolumeMount(device="/dev/vdb", mount="/volume")])
    assert machine.client.ask(FrameType.CONFIGURE, config, FrameType.CONFIGURED) == {"status": "ok"}
    yield
    assert thaw(machine) == {"status": "ok"}
    assert not is_frozen(machine)


def freeze(machine: Machine, **fields: Any) -> Any:
    return machine.client.ask(FrameType.FREEZE_REQ, FreezeRequest(**fields), FrameType.FREEZE_RESP)


def thaw(machine: Machine) -> Any:
    return machine.client.ask(FrameType.THAW_REQ, None, FrameType.THAW_RESP)


def is_frozen(machine: Machine) -> bool:
    told = machine.client.ask(FrameType.ACTIVITY_REQ, None, FrameType.ACTIVITY_RESP)
    return bool(told.get("frozen", False))


def is_silent(wire: Wire, duration_s: float) -> bool:
    """Tell whether nothing comes any more, once what was under way has arrived."""
    wire.socket.settimeout(duration_s)
    heard_since = time.monotonic()
    try:
        while time.monotonic() - heard_since < 5:
            wire.read()
    except TimeoutError:
        return True
    finally:
        wire.socket.settimeout(60)
    return False


def test_a_writer_stands_still_while_frozen_and_all_else_goes_on(machine: Machine) -> None:
    with machine.client.start(ExecRequest(argv=["python3", "-c", WRITER])) as writer:
        writer.expect(FrameType.STDOUT)
        told = freeze(machine, thaw_after_sec=60.0)
        assert [mount["mount"] for mount in told] == ["/volume", "/"]
        for mount in told:
            assert 0 < mount["used_bytes"] < mount["total_bytes"]
            assert 0 < mount["available_bytes"] < mount["total_bytes"]
        assert is_silent(writer, QUIET_S)
        assert is_frozen(machine)
        assert machine.run("echo as ever; cat ~/ticks >/dev/shm/copy; test -s /dev/shm/copy && echo read") == (
            "as ever\nread\n"
        )
        with machine.client.connect() as upload:
            upload.request(FrameType.FILE_WRITE_REQ, FileWriteRequest(path="/home/user/late", size=4))
            upload.send(FrameType.STDIN, b"late")
            upload.socket.settimeout(QUIET_S)
            with pytest.raises(TimeoutError):
                upload.read()
            with pytest.raises(AgentError, match=r"^conflict: the file systems are frozen already"):
                freeze(machine)
            assert machine.client.run("true").exit_code == 0
            assert thaw(machine) == {"status": "ok"}
            upload.socket.settimeout(60)
            assert json.loads(upload.expect(FrameType.FILE_WRITE_RESP)) == {"status": "ok"}
        writer.expect(FrameType.STDOUT)
    assert machine.run("cat ~/late") == "late"


def test_a_copy_taken_while_frozen_needs_no_repair(machine: Machine) -> None:
    disk, copy = machine.directory / "disk.qcow2", machine.directory / "copy.raw"
    with machine.client.start(ExecRequest(argv=["python3", "-c", WRITER])) as writer:
        writer.read_until(lambda data: data.count(b"\n") > 5)
        machine.run("for n in $(seq 200); do echo $n > ~/file-$n; done; echo on it > /volume/note", user="root")
        freeze(machine, thaw_after_sec=120.0)
        subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", disk, copy], check=True)
        (machine.directory / "volume.copy").write_bytes((machine.directory / "volume.ext4").read_bytes())
        thaw(machine)
        writer.expect(FrameType.STDOUT)
    for image, path, content in (
        (copy, "/root/file-200", b"200\n"),
        (machine.directory / "volume.copy", "/note", b"on it\n"),
    ):
        header = subprocess.run(["dumpe2fs", "-h", image], capture_output=True, check=True).stdout.decode()
        assert "needs_recovery" not in header
        checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True)
        assert checked.returncode == 0, checked.stdout
        read = subprocess.run(["debugfs", "-R", f"cat {path}", image], capture_output=True, check=True).stdout
        assert read == content


def test_without_a_freeze_the_same_copy_would_need_its_journal(machine: Machine) -> None:
    copy = machine.directory / "running.raw"
    subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", machine.directory / "disk.qcow2", copy], check=True)
    header = subprocess.run(["dumpe2fs", "-h", copy], capture_output=True, check=True).stdout.decode()
    assert "needs_recovery" in header


def test_a_host_that_never_comes_back_leaves_no_machine_hanging(machine: Machine) -> None:
    with machine.client.start(ExecRequest(argv=["python3", "-c", WRITER])) as writer:
        writer.expect(FrameType.STDOUT)
        started = time.monotonic()
        freeze(machine, thaw_after_sec=THAWED_S)
        is_seen_frozen, is_heard_silent = is_frozen(machine), is_silent(writer, 0.5)
        looked_s = time.monotonic() - started
        assert (is_seen_frozen and is_heard_silent) or looked_s > THAWED_S, "it was thawed before its time"
        writer.expect(FrameType.STDOUT)
        if looked_s < THAWED_S:
            assert time.monotonic() - started > THAWED_S - 0.5
    wait_until(lambda: not is_frozen(machine), "all disks thawed")
    machine.wait_console(b"nobody thawed within 4 s")


def test_a_new_configuration_thaws_first(machine: Machine) -> None:
    freeze(machine, thaw_after_sec=120.0)
    with machine.client.start(ExecRequest(argv=["sh", "-c", "echo x > ~/woken; echo written"])) as writer:
        assert is_silent(writer, 0.3)
        config = configuration(sandbox_id="woken", unix_time_ns=time.time_ns())
        assert machine.client.ask(FrameType.CONFIGURE, config, FrameType.CONFIGURED) == {"status": "ok"}
        assert Result(writer).stdout == b"written\n"
    assert not is_frozen(machine)


def test_thawing_what_is_not_frozen_is_fine_any_number_of_times(machine: Machine) -> None:
    for _ in range(3):
        assert thaw(machine) == {"status": "ok"}
    for _ in range(3):
        assert len(freeze(machine)) == 2
        assert thaw(machine) == {"status": "ok"}


@pytest.mark.parametrize(
    ("break_it", "mend_it", "words"),
    [
        ("mount -t tmpfs none /volume", "umount /volume", "hidden below another mount"),
        ("fsfreeze -f /volume", "fsfreeze -u /volume; true", "frozen already, and not by the host"),
    ],
)
def test_one_disk_that_cannot_be_frozen_leaves_none_frozen(
    machine: Machine, break_it: str, mend_it: str, words: str
) -> None:
    assert machine.client.run("sh", "-c", break_it, user="root").exit_code == 0
    try:
        with pytest.raises(AgentError, match=f"^conflict: /volume cannot be frozen: .*{words}"):
            freeze(machine)
        assert not is_frozen(machine)
        assert machine.run("echo written > ~/free && cat ~/free") == "written\n"
    finally:
        thaw(machine)
        assert machine.client.run("sh", "-c", mend_it, user="root").exit_code == 0
    assert len(freeze(machine)) == 2


def test_a_read_only_disk_needs_no_freeze(machine: Machine) -> None:
    machine.run("mount -o remount,ro /volume", user="root")
    try:
        assert [mount["mount"] for mount in freeze(machine)] == ["/"]
        thaw(machine)
    finally:
        machine.run("mount -o remount,rw /volume", user="root")


def test_the_same_disk_in_two_places_is_frozen_once(machine: Machine) -> None:
    machine.run("mkdir -p /again; mount --bind /home /again; mount -o bind,ro /home /again", user="root")
    try:
        assert [mount["mount"] for mount in freeze(machine)] == ["/volume", "/"]
        thaw(machine)
    finally:
        machine.run("umount /again; umount /again", user="root")


@pytest.mark.parametrize("field", ["timeout_sec", "thaw_after_sec"])
@pytest.mark.parametrize("value", [0.0, -1.0, 1e9])
def test_times_out_of_bounds_are_refused_by_name(machine: Machine, field: str, value: float) -> None:
    with pytest.raises(AgentError, match=f"^invalid: {field} is "):
        freeze(machine, **{field: value})
    assert not is_frozen(machine)


def test_fifty_stuck_writers_do_not_keep_the_host_from_thawing(machine: Machine) -> None:
    """The agent takes 50 connections; the host uses 40 for what may take long and keeps the rest for what must not."""
    freeze(machine, thaw_after_sec=120.0)
    uploads = []
    try:
        for number in range(40):
            uploads.append(machine.client.connect())
            request = FileWriteRequest(path=f"/home/user/stuck-{number}", size=1)
            uploads[-1].socket.sendall(
                frames.encode(FrameType.FILE_WRITE_REQ, json.dumps({"path": request.path, "size": 1}).encode())
                + frames.encode(FrameType.STDIN, b"x")
            )
        assert is_frozen(machine)
        assert thaw(machine) == {"status": "ok"}
        for upload in uploads:
            upload.expect(FrameType.FILE_WRITE_RESP)
    finally:
        for upload in uploads:
            upload.close()
    wait_until(lambda: machine.run("ls /home/user | grep -c stuck") == "40\n", "all written")


def test_a_freeze_that_takes_too_long_is_called_off_and_the_next_one_is_not(machine: Machine) -> None:
    with machine.client.start(ExecRequest(argv=["python3", "-c", WRITER])) as writer:
        writer.expect(FrameType.STDOUT)
        for _ in range(5):
            with pytest.raises(AgentError, match=r"^busy: .* within 1e-06 s|^conflict: .* being frozen at this moment"):
                freeze(machine, timeout_sec=1e-6)
        writer.expect(FrameType.STDOUT)

        def is_possible() -> bool:
            try:
                return len(freeze(machine)) == 2
            except AgentError as error:
                assert "being frozen at this moment" in str(error)  # the one before is still on its way out
                return False

        wait_until(is_possible, "frozen after all")
        assert is_silent(writer, QUIET_S)
        thaw(machine)
        writer.expect(FrameType.STDOUT)


def test_an_agent_that_dies_while_frozen_leaves_a_thaw_to_the_next(machine: Machine) -> None:
    with machine.client.start(ExecRequest(argv=["python3", "-c", WRITER])) as writer:
        writer.expect(FrameType.STDOUT)
        freeze(machine, thaw_after_sec=120.0)
        with pytest.raises((Closed, ConnectionError)):
            machine.client.run("sh", "-c", "kill -9 $PPID", user="root")
    machine.wait_console(b"agent listening", 2)
    assert machine.run("echo thawed > ~/thawed; cat ~/thawed") == "thawed\n"
