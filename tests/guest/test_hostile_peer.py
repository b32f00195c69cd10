"""Whatever stands in the agent's place, and whatever is asked of it: an error of hearth and in time, nothing left."""

from __future__ import annotations

import asyncio
import random
import select
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.guest.peer import Caller, Peer, Script

from hearth.errors import GuestFailed, HearthError, TimedOut
from hearth.guest.client import Guest
from hearth.guest.connection import UNREAD_LIMIT
from hearth.guest.dial import UnixDialer
from hearth.wire import frames
from hearth.wire.frames import MAX_PAYLOAD, FrameType
from hearth.wire.messages import ExecRequest, MachineConfig, Status

Operation = Callable[[Guest, float], Awaitable[object]]
CONFIG = MachineConfig(sandbox_id="s", hostname="h", token="t", unix_time_ns=1)
TRUE = ExecRequest(argv=["true"])
ANSWER_S = 30.0
"""By then every operation with little patience has long given up."""
HASTY_S = 0.05
STEADY_S = 60.0


async def tar_pieces() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield bytes(60_000)


async def read_file(guest: Guest, timeout_s: float) -> bytes:
    async with guest.files.read("/f") as download:
        return await download.collect(1_000_000)


async def read_tar(guest: Guest, timeout_s: float) -> bytes:
    async with guest.files.read_tar("/d") as download:
        return await download.collect(1_000_000)


async def attach(guest: Guest, timeout_s: float) -> int:
    async with guest.sessions.attach("s1") as shell:
        async with asyncio.timeout(timeout_s):
            return await shell.wait()


async def watch(guest: Guest, timeout_s: float) -> object:
    async with guest.files.watch("/d") as changes:
        async with asyncio.timeout(timeout_s):
            return await anext(changes)


OPERATIONS: dict[str, tuple[Operation, FrameType]] = {
    "activity": (lambda guest, _: guest.activity(), FrameType.ACTIVITY_RESP),
    "wait_ready": (lambda guest, timeout_s: guest.wait_ready(timeout_s), FrameType.ACTIVITY_RESP),
    "configure": (lambda guest, timeout_s: guest.configure(CONFIG, timeout_s), FrameType.CONFIGURED),
    "run": (lambda guest, timeout_s: guest.run(TRUE, timeout_s=timeout_s, max_output_bytes=9), FrameType.EXIT),
    "start_detached": (lambda guest, _: guest.start_detached(ExecRequest(argv=["a"], detach=True)), FrameType.STDOUT),
    "ports": (lambda guest, _: guest.ports(), FrameType.PORTS_RESP),
    "power_off": (lambda guest, _: guest.power_off(), FrameType.POWER_OFF_RESP),
    "freeze": (lambda guest, timeout_s: guest.freeze(timeout_s=timeout_s), FrameType.FREEZE_RESP),
    "thaw": (lambda guest, _: guest.thaw(), FrameType.THAW_RESP),
    "last_words": (lambda guest, _: guest.last_words(), FrameType.LAST_WORDS_RESP),
    "forward": (lambda guest, _: guest.forward(80), FrameType.FWD_RESP),
    "sessions": (lambda guest, _: guest.sessions.list(), FrameType.EXEC_LIST_RESP),
    "kill": (lambda guest, _: guest.sessions.kill("s1"), FrameType.EXIT),
    "attach": (attach, FrameType.SESSION_INFO),
    "read": (read_file, FrameType.FILE_READ_RESP),
    "read_tar": (read_tar, FrameType.TAR_READ_RESP),
    "write": (lambda guest, _: guest.files.write("/f", b"x"), FrameType.FILE_WRITE_RESP),
    "write_much": (lambda guest, _: guest.files.write("/f", bytes(9_000_000)), FrameType.FILE_WRITE_RESP),
    "write_tar": (lambda guest, _: guest.files.write_tar("/d", tar_pieces()), FrameType.TAR_WRITE_RESP),
    "stat": (lambda guest, _: guest.files.stat("/f"), FrameType.FILE_STAT_RESP),
    "list": (lambda guest, _: guest.files.list("/d"), FrameType.FILE_LS_RESP),
    "mkdir": (lambda guest, _: guest.files.make_directory("/d"), FrameType.FILE_MKDIR_RESP),
    "remove": (lambda guest, _: guest.files.remove("/d"), FrameType.FILE_REMOVE_RESP),
    "move": (lambda guest, _: guest.files.move("/a", "/b"), FrameType.FILE_MOVE_RESP),
    "chmod": (lambda guest, _: guest.files.change_mode("/a", "0600"), FrameType.FILE_CHMOD_RESP),
    "watch": (watch, FrameType.WATCH_RESP),
}


def says(data: bytes) -> Callable[[FrameType], Script]:
    """Say these bytes, whatever was asked, and stay until the host goes."""

    def make(_: FrameType) -> Script:
        def script(caller: Caller) -> None:
            caller.read()
            caller.send(data)
            caller.read_until_gone()

        return script

    return make


def answers(payload: bytes) -> Callable[[FrameType], Script]:
    """Answer with the right type and this payload."""
    return lambda reply: says(frames.encode(reply, payload))(reply)


def leaves_after(data: bytes) -> Callable[[FrameType], Script]:
    """Say these bytes and close."""

    def make(_: FrameType) -> Script:
        def script(caller: Caller) -> None:
            caller.read()
            caller.send(data)

        return script

    return make


def drips(_: FrameType) -> Script:
    """Send a byte of an endless frame now and then."""

    def script(caller: Caller) -> None:
        caller.read()
        caller.send(frames.encode_header(FrameType.STDOUT, MAX_PAYLOAD))
        for _ in range(500):
            caller.send(b"x")
            if select.select([caller.socket], [], [], 0.01)[0] and not caller.socket.recv(65_536):
                return

    return script


def floods(frame: bytes) -> Callable[[FrameType], Script]:
    """Send the same frame for ever."""

    def make(_: FrameType) -> Script:
        def script(caller: Caller) -> None:
            caller.read()
            block = frame * max(1, 65_536 // len(frame))
            while True:
                caller.send(block)

        return script

    return make


GARBAGE = random.Random(7).randbytes(5_000)
LIES: dict[str, Callable[[FrameType], Script]] = {
    "an oversized length": says(bytes.fromhex("ffffffff 02")),
    "a length one too large": says(bytes.fromhex("00100001 02")),
    "a zero length": says(bytes.fromhex("00000000")),
    "garbage": says(b"\x7f" + GARBAGE),
    "deep JSON": answers(b"[" * 300_000),
    "deep JSON in an object": answers(b'{"a":' * 100_000),
    "JSON of the wrong shape": answers(b'{"status":7}'),
    "bytes that are no UTF-8": answers(b"\xff\xfe\xfd"),
    "an unexpected type": says(frames.encode(FrameType.EXEC_REQ, b"{}")),
    "a close at once": leaves_after(b""),
    "half a header": leaves_after(b"\0\0\0"),
    "half a payload": leaves_after(frames.encode(FrameType.STDOUT, bytes(100))[:50]),
}
STALLS: dict[str, Callable[[FrameType], Script]] = {
    "silence": says(b""),
    "a slow drip": drips,
    "a flood of unknown frames": floods(frames.encode(0xEE, bytes(10))),
    "a flood of empty output": floods(frames.encode(FrameType.STDOUT)),
    "a flood of large output": floods(frames.encode(FrameType.STDERR, bytes(MAX_PAYLOAD))),
}
RETRIES = {"wait_ready"}
"""What tries again until its time is over."""


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_lie_is_the_guests_failure_at_once(peer: Peer, steady: Guest, operation: str, lie: str) -> None:
    run, reply = OPERATIONS[operation]
    peer.serve(LIES[lie](reply))
    started = time.monotonic()
    with pytest.raises(GuestFailed):
        try:
            await run(steady, HASTY_S if operation in RETRIES else STEADY_S)
        except TimedOut:  # a busy machine had not come to hear the lie even once
            await run(steady, ANSWER_S / 2)
    assert time.monotonic() - started < ANSWER_S


@pytest.mark.parametrize("stall", STALLS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_stalling_guest_is_given_up_in_time(peer: Peer, wary: Guest, operation: str, stall: str) -> None:
    run, reply = OPERATIONS[operation]
    peer.serve(STALLS[stall](reply))
    started = time.monotonic()
    with pytest.raises((GuestFailed, TimedOut, TimeoutError)):
        await run(wary, HASTY_S)
    assert time.monotonic() - started < ANSWER_S


async def test_the_loop_stays_responsive_while_a_guest_floods_it_with_tiny_frames(peer: Peer, wary: Guest) -> None:
    peer.serve(floods(frames.encode(FrameType.STDOUT))(FrameType.STDOUT))
    turns_s: list[float] = []

    async def tick() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0)
            turns_s.append(time.thread_time() - before)

    ticker = asyncio.create_task(tick(), name="ticker")
    with pytest.raises(TimedOut):
        await wary.run(TRUE, timeout_s=0.5, max_output_bytes=1_000)
    ticker.cancel()
    assert max(turns_s) < 0.05, "a turn of 256 tiny frames takes about a millisecond"


async def test_a_reader_that_pauses_slows_the_guest_and_bounds_what_is_held(peer: Peer, steady: Guest) -> None:
    sent = 0
    blocked = asyncio.Event()
    loop = asyncio.get_running_loop()
    payload = frames.encode(FrameType.STDOUT, bytes(8_192))

    def script(caller: Caller) -> None:
        nonlocal sent
        caller.read()
        caller.socket.settimeout(0.3)
        try:
            while True:
                sent += caller.socket.send(payload)
        except TimeoutError:
            loop.call_soon_threadsafe(blocked.set)

    peer.serve(script)
    async with steady.start(TRUE) as execution:
        await anext(execution)
        async with asyncio.timeout(60):
            await blocked.wait()
        assert sent < UNREAD_LIMIT + 1_500_000, "what is not the host's buffer is the kernel's"


async def test_more_output_than_asked_for_is_dropped_and_told(peer: Peer, steady: Guest) -> None:
    def script(caller: Caller) -> None:
        caller.read()
        caller.send(frames.encode(FrameType.STDOUT, b"12345") + frames.encode(FrameType.STDERR, b"678"))
        caller.send(frames.encode(FrameType.STDOUT, bytes(1_000)) + frames.encode_exit(3))

    peer.serve(script)
    result = await steady.run(TRUE, timeout_s=60, max_output_bytes=7)
    assert (result.exit_code, result.stdout, result.stderr, result.truncated) == (3, b"12345", b"67", True)
    exact = await steady.run(TRUE, timeout_s=60, max_output_bytes=1_008)
    assert (len(exact.stdout), exact.stderr, exact.truncated) == (1_005, b"678", False)


async def test_a_directory_list_without_end_is_refused(peer: Peer, steady: Guest) -> None:
    entry = b'{"name":"n","size":0,"mode":"0644","is_dir":false,"mtime":0}'
    page = frames.encode(FrameType.FILE_LS_RESP, b"[" + b",".join([entry] * 5_000) + b"]")
    peer.serve(floods(page)(FrameType.FILE_LS_RESP))
    with pytest.raises(GuestFailed, match="without end"):
        await steady.files.list("/")


async def test_a_download_larger_than_allowed_is_refused_however_the_guest_counts_it(peer: Peer, steady: Guest) -> None:
    def script(caller: Caller) -> None:
        caller.read()
        caller.send(frames.encode(FrameType.FILE_READ_RESP, b'{"size":1,"mode":"0644"}'))
        while True:
            caller.send(frames.encode(FrameType.STDOUT, bytes(50_000)))

    peer.serve(script)
    async with steady.files.read("/f") as download:
        assert download.size == 1
        with pytest.raises(HearthError, match="too large"):
            await download.collect(200_000)


@pytest.mark.parametrize("size", [-1, -(2**62)])
async def test_a_negative_file_size_is_refused(peer: Peer, steady: Guest, size: int) -> None:
    peer.serve(answers(b'{"size":%d,"mode":"0644"}' % size)(FrameType.FILE_READ_RESP))
    with pytest.raises(GuestFailed, match="protocol"):
        await read_file(steady, STEADY_S)


@pytest.mark.parametrize("code", [-1, 256, 2**31 - 1, -(2**31)])
async def test_an_exit_code_that_no_process_can_have_is_refused(peer: Peer, steady: Guest, code: int) -> None:
    peer.serve(lambda caller: caller.send(frames.encode_exit(code)))
    with pytest.raises(GuestFailed, match=f"protocol: {code} is no exit code"):
        await steady.run(TRUE, timeout_s=STEADY_S, max_output_bytes=9)


@pytest.mark.parametrize("end", [b"", frames.encode_exit(1)], ids=["no EXIT", "another EXIT"])
async def test_a_body_that_does_not_end_well_never_passes_for_the_whole(peer: Peer, steady: Guest, end: bytes) -> None:
    reply = frames.encode(FrameType.FILE_READ_RESP, b'{"size":9,"mode":"0644"}')
    peer.serve(leaves_after(reply + frames.encode(FrameType.STDOUT, b"half") + end)(FrameType.FILE_READ_RESP))
    with pytest.raises(GuestFailed):
        await read_file(steady, STEADY_S)


async def test_a_socket_that_nobody_accepts_on_is_no_ready_guest(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(8)
        guest = Guest(UnixDialer(control=path, forward=path), None)
        with pytest.raises(TimedOut, match="activity took longer"):
            await guest.wait_ready(0.4)


async def test_a_status_that_is_neither_ok_nor_error_is_refused(peer: Peer, steady: Guest) -> None:
    def script(caller: Caller) -> None:
        caller.read()
        caller.reply(FrameType.FILE_MKDIR_RESP, Status(status="\x1b[31mmaybe"))

    peer.serve(script)
    with pytest.raises(GuestFailed, match=r"unknown status '\\\\x1b\[31mmaybe'"):
        await steady.files.make_directory("/d")
