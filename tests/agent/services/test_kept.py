"""Kept commands against a real agent process: connections come and go, no byte is lost, doubled or reordered."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from random import Random

import pytest
from tests.agent.client import AgentError, Client, Closed, Wire
from tests.agent.conftest import AgentProcess, is_running, running_agent, wait_until

from hearth.agent.kept_table import MAX_RUNNING
from hearth.agent.unacked import WINDOW_BYTES
from hearth.wire import frames
from hearth.wire.frames import FrameType, encode_ack, encode_signal
from hearth.wire.messages import ExecRequest, KeptInfo, MachineConfig, decode

COUNTER = "import os\nfor i in range({count}):\n os.write(1 + i % 2, b'%07d\\n' % i)"
RECORD = 8


def keep(client: Client, name: str, *argv: str, after: int = 0, **fields: object) -> tuple[Wire, KeptInfo]:
    """Start, or attach to, a kept command."""
    wire = client.start(ExecRequest(argv=list(argv), keep=name, after=after, **fields))  # type: ignore[arg-type]
    try:
        return wire, decode(KeptInfo, wire.expect(FrameType.EXEC_KEPT))
    except BaseException:
        wire.close()
        raise


def release(wire: Wire) -> None:
    """Give a command that has ended up, and wait until the agent has forgotten it."""
    with wire:
        wire.send(FrameType.RELEASE)
        assert wire.read_or_none() is None


def ack(wire: Wire, position: int) -> None:
    wire.socket.sendall(encode_ack(position))


def drain(wire: Wire, *, acks_from: int = 0) -> tuple[bytes, bytes, int]:
    """Read to EXIT, acknowledging everything; both outputs and the exit code."""
    outputs = {FrameType.STDOUT: b"", FrameType.STDERR: b""}
    position = acks_from
    for frame in wire.frames():
        outputs[FrameType(frame.type)] += frame.payload
        position += len(frame.payload)
        ack(wire, position)
    return outputs[FrameType.STDOUT], outputs[FrameType.STDERR], wire.exit_code


def test_outputs_stay_apart_and_the_exit_code_comes(client: Client) -> None:
    wire, info = keep(client, "apart", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (info.position, info.input_bytes, info.input_ended) == (0, 0, False)
    assert drain(wire) == (b"out\n", b"err\n", 7)
    release(wire)


def test_input_may_come_from_several_clients(client: Client) -> None:
    wire, _ = keep(client, "input", "cat")
    with wire:
        wire.send(FrameType.STDIN, b"one ")
        assert wire.expect(FrameType.STDOUT) == b"one "
    wire, info = keep(client, "input", after=4)
    assert (info.position, info.input_bytes, info.input_ended) == (4, 4, False)
    wire.send(FrameType.STDIN, b"two")
    wire.send(FrameType.STDIN_EOF)
    assert drain(wire, acks_from=4) == (b"two", b"", 0)
    release(wire)


def test_input_longer_than_any_queue_arrives_whole(client: Client) -> None:
    data = os.urandom(3_000_000)
    wire, _ = keep(client, "long", "sh", "-c", "sleep 0.2; sha256sum; wc -c")
    with wire:
        for start in range(0, len(data), 100_000):
            wire.send(FrameType.STDIN, data[start : start + 100_000])
        wire.send(FrameType.STDIN_EOF)
        out, _, code = drain(wire)
        assert (code, len(out.split()[0])) == (0, 64)
        wire.send(FrameType.RELEASE)


@pytest.mark.parametrize("seed", range(4))
def test_any_number_of_lost_connections_loses_doubles_and_reorders_nothing(client: Client, seed: int) -> None:
    """The host has journalled some of what it was sent when it dies: it asks for exactly what comes after that."""
    random, count, name = Random(seed), 20_000, f"cut-{seed}"
    argv = (sys.executable, "-c", COUNTER.format(count=count))
    outputs = {FrameType.STDOUT: b"", FrameType.STDERR: b""}
    position, code = 0, None
    while code is None:
        wire, info = keep(client, name, *argv, after=position)
        assert info.position == position
        with wire:
            for _ in range(random.randint(1, 40)):
                frame = wire.read()
                if frame.type == FrameType.EXIT:
                    code = frames.parse_exit(frame.payload)
                    wire.send(FrameType.RELEASE)
                    break
                taken = frame.payload[: random.choice((len(frame.payload), random.randint(0, len(frame.payload))))]
                outputs[FrameType(frame.type)] += taken
                position += len(taken)
                if random.random() < 0.7:
                    ack(wire, position)
                if len(taken) < len(frame.payload):
                    break
    expected = [b"%07d\n" % number for number in range(count)]
    assert outputs[FrameType.STDOUT] == b"".join(expected[::2])
    assert outputs[FrameType.STDERR] == b"".join(expected[1::2])
    assert code == 0


def test_clients_that_take_each_others_place_in_the_midst_of_output_end_nothing(client: Client) -> None:
    """What was heard of a client's socket in the moment it is replaced must not be taken for the command's end."""
    count, position, outputs, code = 20_000, 0, b"", None
    argv = (sys.executable, "-c", f"import os\nfor i in range({count}):\n os.write(1, b'%07d\\n' % i)")
    wire, _ = keep(client, "stealing", *argv)
    while code is None:
        for _ in range(3):
            frame = wire.read()
            if frame.type == FrameType.EXIT:
                code = frames.parse_exit(frame.payload)
                break
            outputs += frame.payload
            position += len(frame.payload)
            ack(wire, position)
        else:
            ack(wire, position)
            following = client.start(ExecRequest(keep="stealing", after=position))
            wire.close()  # which is heard of in the moment that the other comes
            wire = following
            assert decode(KeptInfo, wire.expect(FrameType.EXEC_KEPT)).position == position
    assert (code, outputs) == (0, b"".join(b"%07d\n" % number for number in range(count)))
    release(wire)


def test_a_command_without_a_client_stands_still_when_its_window_is_full(client: Client, tmp_path: Path) -> None:
    progress = tmp_path / "progress"
    script = (
        f"import os\nfor i in range(100):\n os.write(1, bytes(10_000))\n open({str(progress)!r}, 'w').write(str(i))"
    )
    wire, _ = keep(client, "window", sys.executable, "-c", script)
    wire.close()
    pipe = 65_536
    wait_until(lambda: progress.exists() and int(progress.read_text() or 0) * 10_000 > WINDOW_BYTES - pipe, "it wrote")
    wire, info = keep(client, "window")
    assert info.running
    assert int(progress.read_text() or 0) * 10_000 <= WINDOW_BYTES + 2 * pipe
    out, _, code = drain(wire)
    assert (len(out), code) == (1_000_000, 0)
    release(wire)


def test_what_is_not_acknowledged_is_sent_again_and_what_is_is_not(client: Client) -> None:
    wire, _ = keep(client, "again", "sh", "-c", "printf abcdef; read x")
    with wire:
        assert wire.expect(FrameType.STDOUT) == b"abcdef"
        ack(wire, 4)
    wire, info = keep(client, "again", after=0)
    with wire:
        assert info.position == 4
        assert wire.expect(FrameType.STDOUT) == b"ef"
        wire.send(FrameType.STDIN_EOF)
        assert drain(wire)[2] in (0, 1)
        wire.send(FrameType.RELEASE)


def test_a_command_that_ended_alone_is_remembered_with_its_output_until_it_is_released(client: Client) -> None:
    wire, _ = keep(client, "alone", "sh", "-c", "read x; echo done; exit 5")
    with wire:
        wire.send(FrameType.STDIN_EOF)
    for _ in range(2):
        wire, _ = keep(client, "alone")
        with wire:
            assert [frame.payload for frame in wire.frames()] == [b"done\n"]
            assert wire.exit_code == 5
    wire, _ = keep(client, "alone")
    list(wire.frames())
    release(wire)
    with pytest.raises(AgentError, match="session not found"):
        keep(client, "alone")


def test_a_time_limit_tells_itself_apart_from_a_kill(client: Client) -> None:
    wire, _ = keep(client, "limit", "sh", "-c", "sleep 1000 & echo $!; wait", timeout_sec=0.5)
    told = b"".join(frame.payload for frame in wire.frames())
    assert wire.exit_code == -1
    if told:  # else its time was over before the shell had said a word
        wait_until(lambda: not is_running(int(told)), "the whole group gone")
    release(wire)


@pytest.mark.parametrize(("frame", "code"), [(frames.encode(FrameType.KILL), 137), (encode_signal(15), 143)])
def test_kill_and_signals_reach_the_group(client: Client, frame: bytes, code: int) -> None:
    wire, _ = keep(client, f"signal-{code}", "sleep", "1000")
    wire.socket.sendall(frame)
    assert frames.parse_exit(wire.expect(FrameType.EXIT)) == code
    release(wire)


def test_a_released_command_ends_with_its_client(client: Client) -> None:
    wire, _ = keep(client, "released", "sh", "-c", "echo $$; exec sleep 1000")
    pid = int(wire.expect(FrameType.STDOUT))
    with wire:
        wire.send(FrameType.RELEASE)
    wait_until(lambda: not is_running(pid), "the command gone")


def test_the_next_client_takes_the_place_of_the_one_before(client: Client) -> None:
    first, _ = keep(client, "stolen", "cat")
    second, _ = keep(client, "stolen")
    with first, pytest.raises(Closed):
        first.read()
    second.send(FrameType.STDIN, b"x")
    assert second.expect(FrameType.STDOUT) == b"x"
    second.send(FrameType.STDIN_EOF)
    assert drain(second, acks_from=1)[2] == 0
    release(second)


def test_output_may_go_to_a_file_and_the_exit_code_is_still_told(client: Client, tmp_path: Path) -> None:
    target = tmp_path / "log"
    wire, _ = keep(client, "file", "sh", "-c", "echo out; echo err >&2; exit 3", output_file=str(target))
    assert drain(wire) == (b"", b"", 3)
    assert target.read_bytes() == b"out\nerr\n"
    release(wire)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (ExecRequest(argv=[], keep="nobody"), "session not found"),
        (ExecRequest(argv=["true"], keep=""), "invalid: keep"),
        (ExecRequest(argv=["true"], keep="x" * 65), "invalid: keep"),
        (ExecRequest(argv=["/nonexistent"], keep="no-program"), "start: .*No such file"),
        (ExecRequest(argv=["true"], keep="no-file", output_file="/nonexistent/x"), "start: .*No such file"),
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_refused(client: Client, request_: ExecRequest, words: str) -> None:
    for _ in range(2):  # a failure leaves nothing behind that the next attempt would find
        with client.start(request_) as wire, pytest.raises(AgentError, match=words):
            wire.read()


def test_there_is_a_limit_and_an_end_makes_room(client: Client) -> None:
    wires = [keep(client, f"many-{number}", "sleep", "1000")[0] for number in range(MAX_RUNNING)]
    with pytest.raises(AgentError, match="busy: "):
        keep(client, "one-more", "true")
    for wire in wires:
        with wire:
            wire.send(FrameType.KILL)
            assert frames.parse_exit(wire.expect(FrameType.EXIT)) == 137
            wire.send(FrameType.RELEASE)
            assert wire.read_or_none() is None
    wire, _ = keep(client, "one-more", "true")
    assert drain(wire)[2] == 0
    release(wire)


def test_an_ended_command_is_forgotten_after_its_time() -> None:
    with running_agent("--patience", "kept_s=0.2") as agent:
        wire, _ = keep(agent.client, "old", "true")
        with wire:
            assert drain(wire)[2] == 0
            assert wire.read_or_none() is None  # its end is the agent's word that it is forgotten
        with pytest.raises(AgentError, match="session not found"):
            keep(agent.client, "old")


def test_a_copy_of_the_machine_does_not_run_what_was_kept_for_the_original(in_test_mode: None) -> None:
    with running_agent() as agent:
        configure(agent, "sb-original")
        wire, _ = keep(agent.client, "mine", "sh", "-c", "echo $$; exec sleep 1000")
        pid = int(wire.expect(FrameType.STDOUT))
        wire.close()
        configure(agent, "sb-original")
        assert is_running(pid)
        configure(agent, "sb-copy")
        with pytest.raises(AgentError, match="session not found"):
            keep(agent.client, "mine")
        wait_until(lambda: not is_running(pid), "the command gone")


def test_the_agents_end_takes_kept_commands_along() -> None:
    with running_agent() as agent:
        wire, _ = keep(agent.client, "left", "sh", "-c", "echo $$; exec sleep 1000")
        pid = int(wire.expect(FrameType.STDOUT))
        wire.close()
        os.kill(agent.pid, signal.SIGTERM)
        wait_until(lambda: not is_running(pid), "the command gone")


def configure(agent: AgentProcess, sandbox_id: str) -> None:
    config = MachineConfig(sandbox_id=sandbox_id, hostname="h", token="", unix_time_ns=1)
    agent.client.ask(FrameType.CONFIGURE, config, FrameType.CONFIGURED)
