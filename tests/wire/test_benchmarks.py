"""What a frame costs. Few rounds, so that they ride along in every run; ``--benchmark-only`` shows the figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pytest_benchmark.fixture import BenchmarkFixture

from hearth.wire import frames, messages
from hearth.wire.frames import Decoder, FrameType

PAYLOAD = bytes(1024)
ROUNDS = 20
ITERATIONS = 200
Result = TypeVar("Result")


def run(benchmark: BenchmarkFixture, function: Callable[[], Result]) -> Result:
    """Time a function in a fixed, small number of calls."""
    result: Result = benchmark.pedantic(function, rounds=ROUNDS, iterations=ITERATIONS)  # type: ignore[no-untyped-call]
    return result


def test_frame_write(benchmark: BenchmarkFixture) -> None:
    wire = run(benchmark, lambda: frames.encode(FrameType.STDOUT, PAYLOAD))
    assert len(wire) == 5 + len(PAYLOAD)


def test_frame_read(benchmark: BenchmarkFixture) -> None:
    wire = frames.encode(FrameType.STDOUT, PAYLOAD)
    decoder = Decoder()

    def read() -> frames.Frame | None:
        decoder.feed(wire)
        return decoder.next()

    assert run(benchmark, read) == (FrameType.STDOUT, PAYLOAD)


def test_exec_request_encode(benchmark: BenchmarkFixture) -> None:
    request = messages.ExecRequest(argv=["sh", "-c", "echo hello"], env={"A": "b"}, cwd="/tmp")
    payload = run(benchmark, lambda: messages.encode(request))
    assert messages.decode(messages.ExecRequest, payload) == request
