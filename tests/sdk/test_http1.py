"""Requests become bytes and bytes become responses, however they are cut."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.sdk.endpoint import Endpoint
from hearth.sdk.http1 import ConnectionLost, HttpRequest, ResponseReader, encode_request

UNIX = Endpoint(socket_path=Path("/run/h.sock"), token="hk_1")
WHOLE = b"HTTP/1.1 201 Created\r\nX-Request-ID: req-1\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"


def read(chunks: list[bytes]) -> ResponseReader:
    reader = ResponseReader()
    for chunk in chunks:
        reader.feed(chunk)
    return reader


@pytest.mark.parametrize("answer", [WHOLE, CHUNKED], ids=["length", "chunked"])
def test_an_answer_cut_at_any_byte_reads_the_same(answer: bytes) -> None:
    for cut in range(1, len(answer)):
        reader = read([answer[:cut], answer[cut:]])
        assert (reader.complete, reader.keep_alive, reader.take()) == (True, True, b"hello")


def test_status_and_headers_are_there_before_the_body() -> None:
    head, _ = WHOLE.split(b"hello")
    reader = read([head])
    assert (reader.head_complete, reader.complete, reader.status) == (True, False, 201)
    assert reader.headers["x-request-id"] == "req-1"


def test_taking_gives_each_part_of_the_body_once() -> None:
    reader = read([CHUNKED[:-10]])
    first = reader.take()
    reader.feed(CHUNKED[-10:])
    assert first + reader.take() == b"hello"
    assert reader.take() == b""


def test_an_answer_without_a_body_is_complete_with_its_head() -> None:
    reader = read([b"HTTP/1.1 204 No Content\r\n\r\n"])
    assert (reader.complete, reader.take()) == (True, b"")


def test_the_server_may_end_the_connection_after_its_answer() -> None:
    reader = read([b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"])
    assert (reader.complete, reader.keep_alive) == (True, False)


@pytest.mark.parametrize(("came", "answered"), [(b"", False), (b"HTTP/1.1 200", False), (WHOLE[:-1], True)])
def test_an_early_end_is_a_lost_connection(came: bytes, answered: bool) -> None:
    reader = read([came] if came else [])
    with pytest.raises(ConnectionLost) as lost:
        reader.feed(b"")
    assert lost.value.answered is answered


def test_what_is_not_http_is_a_lost_connection() -> None:
    with pytest.raises(ConnectionLost):
        read([b"SSH-2.0-OpenSSH_9.2\r\n"])


def test_a_request_carries_token_length_and_body() -> None:
    request = HttpRequest(method="POST", target="/a?b=c", timeout_s=1, accept="application/json", body=b'{"x":1}')
    head, _, body = encode_request(request, UNIX).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /a?b=c HTTP/1.1"
    assert body == b'{"x":1}'
    assert {"Host: hearth", "Authorization: Bearer hk_1", "Content-Length: 7", "Accept: application/json"} <= set(lines)


def test_without_a_token_no_header_pretends_to_be_one() -> None:
    request = HttpRequest(method="GET", target="/health", timeout_s=1, accept="application/json")
    sent = encode_request(request, Endpoint(host="::1", port=8080))
    assert b"Authorization" not in sent
    assert b"Host: [::1]:8080\r\n" in sent


def test_a_token_does_not_show_when_an_endpoint_is_printed() -> None:
    assert "hk_1" not in repr(UNIX)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_body_is_announced_whatever_the_method(method: str) -> None:
    request = HttpRequest(method=method, target="/a", timeout_s=1, accept="application/json", body=b"{}")
    head, _, body = encode_request(request, UNIX).partition(b"\r\n\r\n")
    assert {b"Content-Length: 2", b"Content-Type: application/json"} <= set(head.split(b"\r\n"))
    assert body == b"{}"


class Interrupted(ResponseReader):
    """Somebody presses Ctrl-C while the parser tells of the body."""

    def on_body(self, data: bytes) -> None:
        raise KeyboardInterrupt


def test_an_interruption_in_the_middle_of_an_answer_is_one() -> None:
    with pytest.raises(KeyboardInterrupt):
        Interrupted().feed(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
