from __future__ import annotations

import pytest

from hearth.wire import codec
from hearth.wire.codec import BadMessage
from hearth.wire.messages import ExecRequest
from hearth.wire.record import Bounds, Record, field


class Inner(Record):
    value: int = field(bounds=Bounds(low=1, high=3))


class Outer(Record):
    inner: Inner | None = None
    inners: list[Inner] = field(default_factory=list)
    by_name: dict[str, Inner] = field(default_factory=dict)
    ratio: float = 0.5


def test_nested_messages_survive_the_round_trip() -> None:
    outer = Outer(inner=Inner(value=1), inners=[Inner(value=2)], by_name={"a": Inner(value=3)}, ratio=2.0)
    wire = codec.encode(outer)
    assert wire == b'{"inner":{"value":1},"inners":[{"value":2}],"by_name":{"a":{"value":3}},"ratio":2.0}'
    assert codec.decode(Outer, wire) == outer


def test_defaults_are_left_out_and_come_back() -> None:
    assert codec.encode(Outer()) == b"{}"
    assert codec.decode(Outer, b"{}") == Outer()
    assert codec.decode(Outer, b'{"ratio":2}').ratio == 2.0


@pytest.mark.parametrize(
    ("wire", "words"),
    [
        (b'{"inner":{"value":4}}', "Outer.inner.value: outside 1..3"),
        (b'{"inners":[{"value":1},{"value":0}]}', "Outer.inners[1].value: outside 1..3"),
        (b'{"by_name":{"k":{}}}', "Outer.by_name['k']: field 'value' is missing"),
        (b'{"by_name":{"%s":1}}' % (b"k" * 5_000), f"Outer.by_name['{'k' * 40}']: expected an object"),
    ],
)
def test_the_path_to_a_wrong_value_is_told(wire: bytes, words: str) -> None:
    with pytest.raises(BadMessage) as caught:
        codec.decode(Outer, wire)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"{} {}",
        b"\xff",
        b"\xef\xbb\xbf{}",
        '{"argv":["a"]}'.encode("utf-16"),
        b'{"timeout_sec":NaN}',
        b'{"timeout_sec":Infinity}',
        b'{"rows":' + b"1" * 5_000 + b"}",
        b"[" * 500_000,
        b'{"a":' * 100_000,
        b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda payload: repr(payload[:24]),
)
def test_malformed_huge_and_deep_json_is_refused(payload: bytes) -> None:
    with pytest.raises(BadMessage, match="malformed JSON"):
        codec.decode(ExecRequest, payload)


def test_a_number_json_cannot_say_is_refused_by_the_writer() -> None:
    with pytest.raises(BadMessage):
        codec.encode(ExecRequest(timeout_sec=float("inf")))
