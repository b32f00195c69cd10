"""Kept commands from the host's side: against the real agent, and against one that lies."""

from __future__ import annotations

import pytest
from tests.guest.peer import Caller, Peer

from hearth.errors import GuestFailed, InvalidInput, NotFound, StartFailed
from hearth.guest.client import Guest
from hearth.guest.kept import MAX_POSITION, check_position
from hearth.wire import frames
from hearth.wire.frames import FrameType
from hearth.wire.messages import ExecRequest, KeptInfo, encode


def info(position: int = 0) -> bytes:
    told = KeptInfo(position=position, running=True, input_bytes=0, input_ended=False)
    return frames.encode(FrameType.EXEC_KEPT, encode(told))


async def test_a_command_goes_on_between_two_clients(guest: Guest) -> None:
    request = ExecRequest(argv=["sh", "-c", "echo one; read x; echo two; exit 3"], keep="guest-1")
    async with guest.keep(request) as stream:
        assert (await anext(stream)).data == b"one\n"
        await stream.acknowledge(4)
    async with guest.keep(ExecRequest(keep="guest-1", after=4)) as stream:
        assert check_position(stream.info, 4) == 4
        await stream.close_stdin()
        assert [output.data async for output in stream] == [b"two\n"]
        assert (stream.exit_code, stream.timed_out) == (3, False)
        await stream.release()


async def test_a_time_limit_is_told(guest: Guest) -> None:
    async with guest.keep(ExecRequest(argv=["sleep", "1000"], keep="guest-2", timeout_sec=0.1)) as stream:
        assert (await stream.wait(), stream.timed_out) == (137, True)
        await stream.release()


async def test_what_is_not_there_and_what_cannot_start_are_told_apart(guest: Guest) -> None:
    with pytest.raises(NotFound):
        async with guest.keep(ExecRequest(keep="guest-none")):
            pass
    with pytest.raises(StartFailed, match="No such file"):
        async with guest.keep(ExecRequest(argv=["/nonexistent"], keep="guest-3")):
            pass


@pytest.mark.parametrize(
    "request_", [ExecRequest(argv=["true"]), ExecRequest(argv=["true"], keep="x", tty=True)], ids=str
)
def test_only_named_plain_commands_are_kept(guest: Guest, request_: ExecRequest) -> None:
    with pytest.raises(InvalidInput):
        guest.keep(request_)


def test_a_kept_command_is_not_started_as_a_plain_one(guest: Guest) -> None:
    with pytest.raises(InvalidInput):
        guest.start(ExecRequest(argv=["true"], keep="x"))


@pytest.mark.parametrize("position", [0, 9, MAX_POSITION + 1])
def test_a_guest_that_takes_output_back_or_claims_too_much_of_it_is_not_believed(position: int) -> None:
    told = KeptInfo(position=position, running=True, input_bytes=0, input_ended=False)
    with pytest.raises(GuestFailed, match="protocol"):
        check_position(told, 10)


@pytest.mark.parametrize(
    "answer",
    [
        frames.encode_exit(0),
        frames.encode(FrameType.STDOUT, b"x"),
        frames.encode(FrameType.EXEC_KEPT, b"{}"),
        frames.encode(FrameType.EXEC_KEPT, b'{"position":-1,"running":true,"input_bytes":0,"input_ended":false}'),
        info() + frames.encode_exit(-2),
        info() + frames.encode_exit(256),
        info() + frames.encode(FrameType.EXIT, b"x"),
    ],
    ids=repr,
)
async def test_nonsense_is_the_guests_failure(peer: Peer, steady: Guest, answer: bytes) -> None:
    def script(caller: Caller) -> None:
        caller.read()
        caller.send(answer)
        caller.read_until_gone()

    peer.serve(script)
    with pytest.raises(GuestFailed):
        async with steady.keep(ExecRequest(argv=["true"], keep="x")) as stream:
            await stream.wait()
