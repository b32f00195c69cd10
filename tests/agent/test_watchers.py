"""Registrations of programs that want to know of a new life, good ones and others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hearth.agent.watchers import signal_watchers

PROGRAM = "import signal; print(signal.sigwait({10}) == 10)"
BLOCKED = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, {10}); print('up', flush=True); "
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and pidfds")


@pytest.fixture
def proc() -> Iterator[int]:
    descriptor = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def program() -> Iterator[subprocess.Popen[bytes]]:
    """A program that waits for SIGUSR1 (10) and says whether it came."""
    with subprocess.Popen([sys.executable, "-c", BLOCKED + PROGRAM], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"up\n"
        yield running
        running.kill()


def test_a_registered_program_gets_its_signal(proc: int, program: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (tmp_path / str(program.pid)).write_text("10\n")
    assert signal_watchers(proc, str(tmp_path)) == 1
    assert program.communicate(timeout=60)[0] == b"True\n"


@pytest.mark.parametrize("content", ["", "0", "65", "-9", "9 9", "x", "9" * 100, "1e1"])
def test_what_is_no_signal_is_not_sent(
    proc: int, program: subprocess.Popen[bytes], tmp_path: Path, content: str
) -> None:
    (tmp_path / str(program.pid)).write_text(content)
    assert signal_watchers(proc, str(tmp_path)) == 0
    assert program.poll() is None


@pytest.mark.parametrize("name", ["1", "0", "-1", "+5", "05x", "¹²", "99999999999999999999", "self"])
def test_what_is_no_program_to_signal_is_left(proc: int, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(str(signal.SIGKILL.value))
    assert signal_watchers(proc, str(tmp_path)) == 0


def test_neither_the_agent_nor_through_links_and_special_files(
    proc: int, program: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    (tmp_path / str(os.getpid())).write_text("9")
    (tmp_path / "real").write_text("10")
    place = tmp_path / str(program.pid)
    place.symlink_to(tmp_path / "real")
    assert signal_watchers(proc, str(tmp_path)) == 0
    place.unlink()
    os.mkfifo(place)
    assert signal_watchers(proc, str(tmp_path)) == 0
    place.unlink()
    place.mkdir()
    assert signal_watchers(proc, str(tmp_path)) == 0
    assert program.poll() is None


def test_registrations_of_programs_that_ended_are_removed(
    proc: int, program: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    place = tmp_path / str(program.pid)
    place.write_text("10")
    program.kill()
    program.wait()
    assert signal_watchers(proc, str(tmp_path)) == 0
    assert not place.exists()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_only_the_owner_of_a_program_registers_it(proc: int, program: subprocess.Popen[bytes], tmp_path: Path) -> None:
    place = tmp_path / str(program.pid)
    place.write_text("10")
    os.chown(place, 65534, 65534)
    assert signal_watchers(proc, str(tmp_path)) == 0
    assert program.poll() is None


def test_no_directory_is_no_watchers(proc: int, tmp_path: Path) -> None:
    assert signal_watchers(proc, str(tmp_path / "none")) == 0
    (tmp_path / "link").symlink_to(tmp_path)
    assert signal_watchers(proc, str(tmp_path / "link")) == 0
