from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import uvloop

from hearth.errors import HostUnfit
from hearth.host.spawn import Child, Exit, Identity, adopt, identify, setpriv_prefix, spawn

WAIT_S = 60.0
NAMED_SIGNALS = (1 << 31) - 1
"""The C library keeps 32 and 33 to itself."""


@pytest.fixture
def output(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    yield descriptor
    os.close(descriptor)


def said(output: int) -> str:
    return os.pread(output, 65536, 0).decode()


def started_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def run_to_end(child: Child) -> Exit:
    async with asyncio.timeout(WAIT_S):
        return await child.wait()


@pytest.mark.parametrize(
    ("script", "end", "words"),
    [
        ("exit 0", Exit(status=0), "ended with status 0"),
        ("exit 7", Exit(status=7), "ended with status 7"),
        ("kill -9 $$", Exit(signal=9), "ended by SIGKILL"),
        ("kill -40 $$", Exit(signal=40), "ended by signal 40"),
    ],
)
async def test_the_end_is_told_as_a_value(script: str, end: Exit, words: str, output: int) -> None:
    child = spawn(["sh", "-c", script], descriptors={}, output=output)
    assert await run_to_end(child) == end
    assert str(end) == words


async def test_descriptors_arrive_under_the_numbers_asked_for_even_when_they_cross(output: int) -> None:
    readers, writers = [], []
    for _ in range(3):
        reader, writer = os.pipe()
        readers.append(reader)
        writers.append(writer)
    first, second, third = writers
    crossed = {second: first, first: second, third: third}  # each takes another's number, one keeps its own
    script = f"echo to-{second} >&{second}; echo to-{first} >&{first}; echo to-{third} >&{third}"
    try:
        child = spawn(["bash", "-c", script], descriptors=crossed, output=output)
        assert await run_to_end(child) == Exit(status=0), said(output)
        assert [os.read(reader, 100) for reader in readers] == [
            f"to-{second}\n".encode(),
            f"to-{first}\n".encode(),
            f"to-{third}\n".encode(),
        ]
    finally:
        for descriptor in readers + writers:
            os.close(descriptor)


async def test_a_child_gets_nothing_but_what_was_named(output: int) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)  # as if our own parent had left it open for us
    try:
        child = spawn(["ls", "/proc/self/fd"], descriptors={9: reader}, output=output)
        assert await run_to_end(child) == Exit(status=0)
    finally:
        os.close(reader)
        os.close(writer)
    assert said(output).split() == ["0", "1", "2", "3", "9"]  # 3 is the directory ls reads


async def test_stdin_is_empty_and_both_outputs_go_to_the_log(output: int) -> None:
    child = spawn(["sh", "-c", "cat; echo out; echo err >&2"], descriptors={}, output=output)
    assert await run_to_end(child) == Exit(status=0)
    assert said(output) == "out\nerr\n"


async def test_the_environment_is_small_and_signals_are_as_the_system_made_them(
    output: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_DAEMON", "x")
    script = "env; grep -E 'SigIgn|SigBlk' /proc/self/status"
    child = spawn(["sh", "-c", script], descriptors={}, output=output, environment={"MINE": "1"})
    assert await run_to_end(child) == Exit(status=0)
    text = said(output)
    assert "MINE=1" in text
    assert "SECRET_OF_THE_DAEMON" not in text
    masks = [int(line.split()[1], 16) for line in text.splitlines() if line.startswith("Sig")]
    assert [mask & NAMED_SIGNALS for mask in masks] == [0, 0]


@pytest.mark.parametrize(("session", "own"), [(True, True), (False, False)])
async def test_a_child_has_a_session_of_its_own_unless_told_otherwise(session: bool, own: bool, output: int) -> None:
    child = spawn(["sleep", "60"], descriptors={}, output=output, session=session)
    try:
        assert (os.getsid(child.pid) == child.pid) is own
    finally:
        child.kill()
        await run_to_end(child)


async def test_many_may_wait_and_one_that_gives_up_disturbs_no_other(output: int) -> None:
    child = spawn(["sleep", "60"], descriptors={}, output=output)
    waiters = [asyncio.create_task(child.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiters[0].cancel()
    child.kill(signal.SIGTERM)
    async with asyncio.timeout(WAIT_S):
        results = await asyncio.gather(*waiters, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [Exit(signal=signal.SIGTERM)] * 2
    assert await child.wait() == Exit(signal=signal.SIGTERM)


async def test_killing_and_closing_after_the_end_are_fine(output: int) -> None:
    child = spawn(["true"], descriptors={}, output=output)
    await run_to_end(child)
    child.kill()
    child.close()


def test_the_end_is_seen_under_uvloop_too(output: int) -> None:
    async def scenario() -> Exit:
        return await run_to_end(spawn(["sh", "-c", "exit 5"], descriptors={}, output=output))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scenario()) == Exit(status=5)


@pytest.mark.parametrize("program", ["hearth-no-such-program", "/etc/hostname"])
def test_a_program_that_cannot_be_started_is_named(program: str, output: int) -> None:
    with pytest.raises(HostUnfit, match=program):
        spawn([program], descriptors={}, output=output)


async def test_a_process_of_an_earlier_daemon_is_adopted_and_its_end_seen(output: int) -> None:
    child = spawn(["sleep", "60"], descriptors={}, output=output)
    adopted = adopt(child.identity)
    assert adopted is not None
    end = asyncio.create_task(adopted.wait())
    await asyncio.sleep(0)
    adopted.kill()
    async with asyncio.timeout(WAIT_S):
        assert str(await end) == "ended, its status is not known"
    assert await run_to_end(child) == Exit(signal=signal.SIGKILL)


async def test_a_number_that_was_reused_is_not_adopted(output: int) -> None:
    child = spawn(["sleep", "60"], descriptors={}, output=output)
    try:
        for change in ({"started_ticks": child.identity.started_ticks - 1}, {"boot_id": "another boot"}):
            assert adopt(dataclasses.replace(child.identity, **change)) is None
    finally:
        child.kill()
        await run_to_end(child)
    assert adopt(child.identity) is None
    assert identify(child.pid) is None


async def test_a_dead_process_nobody_has_buried_yet_is_not_adopted(output: int) -> None:
    child = spawn(["true"], descriptors={}, output=output)
    await asyncio.to_thread(os.waitid, os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert identify(child.pid) == child.identity
    assert adopt(child.identity) is None
    await run_to_end(child)


async def test_an_identity_survives_a_name_made_to_confuse(tmp_path: Path, output: int) -> None:
    program = tmp_path / ") S 1 (x"
    program.symlink_to("/bin/sleep")
    child = spawn([str(program), "60"], descriptors={}, output=output)
    try:
        assert child.identity == Identity(pid=child.pid, started_ticks=started_ticks(child.pid), boot_id=boot_id())
    finally:
        child.kill()
        await run_to_end(child)


async def test_closing_leaves_the_process_alone(output: int) -> None:
    child = spawn(["sleep", "60"], descriptors={}, output=output)
    adopted = adopt(child.identity)
    assert adopted is not None
    adopted.close()
    adopted.kill()  # it is watched no more, so nothing is sent
    assert identify(child.pid) == child.identity
    child.kill()
    assert await run_to_end(child) == Exit(signal=signal.SIGKILL)


@pytest.mark.parametrize(
    ("groups", "words"),
    [((), "--clear-groups"), ((108, 109), "--groups 108,109")],
)
def test_the_words_that_drop_privileges(groups: Sequence[int], words: str) -> None:
    assert " ".join(setpriv_prefix(901, 902, groups=groups)) == (
        f"setpriv --reuid 901 --regid 902 {words} --no-new-privs "
        "--inh-caps=-all --ambient-caps=-all --bounding-set=-all --"
    )


@pytest.mark.root
async def test_nothing_of_root_is_left_after_dropping_privileges(output: int) -> None:
    prefix = setpriv_prefix(901, 902, groups=[903])
    child = spawn([*prefix, "cat", "/proc/self/status"], descriptors={}, output=output)
    assert await run_to_end(child) == Exit(status=0)
    status = dict(line.split(":\t", 1) for line in said(output).splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["901"] * 4
    assert status["Gid"].split() == ["902"] * 4
    assert status["Groups"].split() == ["903"]
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1"
