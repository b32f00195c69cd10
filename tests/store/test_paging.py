"""Cursors: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hearth.errors import InvalidInput
from hearth.store.paging import decode_cursor, encode_cursor


@given(created_at=st.datetimes(timezones=st.just(UTC)), row_id=st.text())
def test_a_cursor_reads_back_to_the_microsecond(created_at: datetime, row_id: str) -> None:
    cursor = encode_cursor((created_at, row_id))
    assert decode_cursor(cursor) == (created_at, row_id)
    assert cursor.isascii()
    assert not set(cursor) & set("+/=&?# ")


@pytest.mark.parametrize(
    "json", ["", "[]", "{}", '["2026-01-01T00:00:00","x"]', '["2026-01-01T00:00:00Z"]', '["x","y"]', "\x00"]
)
def test_a_cursor_of_the_wrong_form_is_invalid(json: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_cursor(base64.urlsafe_b64encode(json.encode()).decode().rstrip("="))
    assert caught.value.field == "cursor"


@given(st.text())
def test_any_text_is_a_cursor_or_invalid_input(text: str) -> None:
    try:
        position = decode_cursor(text)
    except InvalidInput:
        return
    assert decode_cursor(encode_cursor(position)) == position
