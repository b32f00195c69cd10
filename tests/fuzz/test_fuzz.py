"""Random and once interesting input against the frame parser, the message decoder and the agent's request router.

The usual suite runs each target briefly and replays ``corpus``; ``make fuzz`` gives them FUZZ_S seconds together. What
hypothesis finds then is kept in ``examples`` and tried first from then on. The agent runs on this host, perhaps as
root: it is locked into its scratch directory, which holds no program to start.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from tests.agent.client import Wire
from tests.agent.conftest import AgentProcess, running_agent

from hearth.wire import frames, messages
from hearth.wire.frames import Decoder, Frame, FrameType, WireError
from hearth.wire.messages import BadMessage
from hearth.wire.record import Record

FUZZ_S = float(os.environ.get("FUZZ_S", "0"))
TARGETS = 3
HERE = Path(__file__).parent
CORPUS = sorted((HERE / "corpus").glob("*.bin"))
MESSAGES = sorted(
    (value for value in vars(messages).values() if isinstance(value, type) and issubclass(value, Record)),
    key=lambda cls: cls.__name__,
)
FIELDS = sorted({name for cls in MESSAGES for name in cls.__annotations__} - {"token"})
CLOSED = b"internal: the machine's last configuration failed: it serves nothing"
TYPES = [int(kind) for kind in FrameType]
fuzz = settings(
    max_examples=1000 if FUZZ_S else 150,
    deadline=None,
    derandomize=not FUZZ_S,
    database=DirectoryBasedExampleDatabase(HERE / "examples") if FUZZ_S else None,
    suppress_health_check=list(HealthCheck),
)

# No word leads out of the scratch directory, should the agent not be locked into it for want of root.
WORDS = st.text(st.characters(exclude_characters="/."), max_size=8) | st.sampled_from(["s1", "init", "0644", "\0"])
NUMBERS = st.integers() | st.sampled_from([0, -1, 2**31, 2**63, -(2**63)]) | st.floats()
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=10,
).map(lambda value: json.dumps(value).encode())
PAYLOADS = JSON | st.binary(max_size=80)
FRAMES = st.builds(frames.encode, st.sampled_from(TYPES) | st.integers(0, 255), PAYLOADS)
SEEDS = st.sampled_from([path.read_bytes() for path in CORPUS])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """A few frames, seeds and scraps, with some bytes changed."""
    data = bytearray(b"".join(draw(st.lists(FRAMES | SEEDS | st.binary(max_size=12), max_size=4))))
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def for_its_time(target: Callable[[], None]) -> None:
    """Run a target at least once, and again until its share of the time is over."""
    end = time.monotonic() + FUZZ_S / TARGETS
    target()
    while time.monotonic() < end:
        target()


def parse(pieces: list[bytes]) -> tuple[list[Frame], str]:
    """Give the frames of a stream and how it ended."""
    decoder, found = Decoder(), []
    try:
        for piece in pieces:
            decoder.feed(piece)
            while (frame := decoder.next()) is not None:
                found.append(frame)
        decoder.eof()
    except WireError as error:
        return found, type(error).__name__
    return found, "end"


def check_parser(data: bytes, size: int) -> None:
    whole = parse([data])
    assert parse([data[at : at + size] for at in range(0, len(data), size)]) == whole
    again = b"".join(frames.encode(frame.type, frame.payload) for frame in whole[0])
    assert data.startswith(again)
    assert whole[1] != "end" or again == data


def check_decoder(cls: Any, payload: bytes) -> None:
    try:
        message = messages.decode(cls, payload)
    except BadMessage:
        return
    assert messages.decode(cls, messages.encode(message)) == message


def check_router(agent: AgentProcess, data: bytes) -> None:
    with agent.client.connect() as wire:
        try:
            wire.socket.sendall(data)
            wire.half_close()
        except OSError:  # it has answered and closed
            pass
        answer = read_rest(wire)
    for frame in parse([answer])[0]:
        assert frame.type in TYPES
        if frame.type == FrameType.ERROR and frame.payload == CLOSED:
            configure(agent)
            return
        assert frame.type != FrameType.ERROR or not frame.payload.startswith(b"internal"), frame
    assert agent.process is not None
    assert agent.process.poll() is None


def configure(agent: AgentProcess) -> None:
    """Have an agent serve again that random input had configured halfway."""
    config = messages.MachineConfig(sandbox_id="s", hostname="h", token="", unix_time_ns=1)
    assert agent.client.ask(FrameType.CONFIGURE, config, FrameType.CONFIGURED) == {"status": "ok"}


def read_rest(wire: Wire) -> bytes:
    try:
        return wire.raw_rest()
    except ConnectionResetError:
        return b""


@pytest.fixture(scope="module")
def locked_agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    scratch = tmp_path_factory.mktemp("root")
    with running_agent(*(("--root", str(scratch)) if os.geteuid() == 0 else ())) as agent:
        yield agent


def test_an_agent_that_input_has_shut_is_opened_again(locked_agent: AgentProcess) -> None:
    body = b'{"sandbox_id":"s","hostname":"h","token":"","unix_time_ns":1,"files":{"/":{"content":""}}}'
    for data in (frames.encode(FrameType.CONFIGURE, body), frames.encode(FrameType.EXEC_LIST_REQ)):
        check_router(locked_agent, data)
    assert locked_agent.client.ask(FrameType.EXEC_LIST_REQ, None, FrameType.EXEC_LIST_RESP) is not None


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_was_interesting_once_is_still_taken(locked_agent: AgentProcess, path: Path) -> None:
    data = path.read_bytes()
    check_parser(data, 1)
    for cls in MESSAGES:
        check_decoder(cls, data[5:])
    check_router(locked_agent, data)


def test_the_parser_gives_frames_or_an_error_whatever_the_pieces() -> None:
    @fuzz
    @given(data=streams(), size=st.integers(1, 20))
    def target(data: bytes, size: int) -> None:
        check_parser(data, size)

    for_its_time(target)


def test_the_decoder_gives_a_message_that_survives_its_encoding_or_an_error() -> None:
    @fuzz
    @given(cls=st.sampled_from(MESSAGES), payload=PAYLOADS)
    def target(cls: Any, payload: bytes) -> None:
        check_decoder(cls, payload)

    for_its_time(target)


def test_the_router_answers_everything_and_lives(locked_agent: AgentProcess) -> None:
    @fuzz
    @given(data=streams())
    def target(data: bytes) -> None:
        check_router(locked_agent, data)

    for_its_time(target)
