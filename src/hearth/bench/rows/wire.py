"""``wire.*``: what framing costs, without any I/O."""

from __future__ import annotations

import struct

from hearth.bench.row import Measurement, Row, at_most
from hearth.bench.samples import Effort, SampleFailed, alternate, timed
from hearth.wire import frames
from hearth.wire.frames import Decoder, FrameType

PAYLOAD = bytes(range(256)) * 4
FRAMES = 1000
_HEADER = struct.Struct(">IB")


def measure_frames(effort: Effort) -> Measurement:
    """Encode frames of 1 KiB and decode them again, one by one."""
    ours, theirs = alternate(timed(through_codec), timed(by_hand), effort.samples(500, 50, warm_up=5))
    return Measurement(measured=ours, reference=theirs, note="ms for 1 000 frames is µs for one")


def through_codec() -> None:
    """Encode and decode ``FRAMES`` frames with ``hearth.wire``."""
    decoder = Decoder()
    for _ in range(FRAMES):
        decoder.feed(frames.encode(FrameType.STDOUT, PAYLOAD))
        frame = decoder.next()
        if frame is None or len(frame.payload) != len(PAYLOAD):
            raise SampleFailed("a frame came back changed")


def by_hand() -> None:
    """Do the same bytes with nothing but ``struct`` and slices."""
    for _ in range(FRAMES):
        data = _HEADER.pack(len(PAYLOAD) + 1, FrameType.STDOUT) + PAYLOAD
        length, _frame_type = _HEADER.unpack_from(data)
        if len(data[5 : 4 + length]) != len(PAYLOAD):
            raise SampleFailed("a slice came back changed")


ROWS = (
    Row(
        name="wire.frames",
        what="encode and decode 1 000 frames of 1 KiB",
        reference="struct and slices over the same bytes",
        goals=at_most(ratio=3),
        measure=measure_frames,
    ),
)
