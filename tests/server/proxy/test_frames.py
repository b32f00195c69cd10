"""What of a WebSocket counts as use, however its bytes are cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hearth.server.proxy.frames import MAX_HEADS, PING, PONG, FrameWatch

TEXT, CLOSE = 0x1, 0x8
Frame = tuple[int, int, bool]
FRAMES = st.lists(
    st.tuples(
        st.sampled_from([TEXT, PING, PONG, CLOSE]),
        st.sampled_from([0, 1, 125, 126, 300, 65_535, 65_536]),
        st.booleans(),
    ),
    max_size=5,
)


def encode(opcode: int, size: int, masked: bool) -> bytes:
    mark = 0x80 if masked else 0
    if size < 126:
        head = bytes([0x80 | opcode, mark | size])
    elif size < 65_536:
        head = bytes([0x80 | opcode, mark | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, mark | 127]) + size.to_bytes(8, "big")
    return head + (b"\xff\xff\xff\xff" if masked else b"") + bytes([PING]) * size


@given(FRAMES, st.lists(st.integers(1, 400), max_size=40))
def test_use_is_every_frame_but_the_ignored_kind_whatever_the_cuts(frames: list[Frame], cuts: list[int]) -> None:
    data = b"".join(encode(*frame) for frame in frames)
    watch, used = FrameWatch(PING), False
    for size in [*cuts, len(data)]:
        used = watch.feed(data[:size]) or used
        data = data[size:]
    assert used == any(opcode != PING for opcode, _, _ in frames)


def test_frames_are_judged_one_by_one() -> None:
    watch = FrameWatch(PONG)
    assert [watch.feed(encode(opcode, 70_000, True)) for opcode in (TEXT, PONG, PING, PONG)] == [
        True,
        False,
        True,
        False,
    ]


def test_half_a_frame_is_no_use_before_its_kind_is_known() -> None:
    watch = FrameWatch(PING)
    whole = encode(PING, 5, True)
    assert not any(watch.feed(whole[at : at + 1]) for at in range(len(whole)))


def test_who_floods_with_frames_is_taken_at_his_word() -> None:
    watch = FrameWatch(PING)
    ping = encode(PING, 0, True)
    assert not watch.feed(ping * (MAX_HEADS - 1))
    assert not watch.feed(ping * (MAX_HEADS - 1)), "it is counted for each piece of bytes"
    assert watch.feed(ping * MAX_HEADS)
    assert watch.feed(ping), "where a frame begins is not known any more"
    assert not watch.feed(b"")
