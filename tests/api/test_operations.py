"""The table of operations is well-formed."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import msgspec

from hearth.api.limits import PREFIX
from hearth.api.operations import OPERATIONS
from hearth.api.schemas import Nothing
from hearth.errors import Code

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"


def test_no_two_operations_share_a_name_or_an_address() -> None:
    assert max(Counter(operation.name for operation in OPERATIONS).values()) == 1
    assert max(Counter((operation.method, operation.path) for operation in OPERATIONS).values()) == 1


def test_only_what_lies_at_the_root_is_public() -> None:
    for operation in OPERATIONS:
        assert operation.public is not operation.path.startswith(PREFIX)


def test_an_operation_on_one_object_may_answer_that_there_is_none() -> None:
    named = [operation for operation in OPERATIONS if re.search(r"{\w+}", operation.path)]
    assert named
    assert all(Code.NOT_FOUND in operation.every_error for operation in named)


def test_what_answers_nothing_says_204() -> None:
    for operation in OPERATIONS:
        has_body = operation.streams or operation.events is not None or operation.gives is not Nothing
        if operation.method != "HEAD" and operation.conversation is None:
            assert bool(has_body) is (operation.statuses != (204,))


def test_every_call_with_a_token_may_answer_that_it_is_wrong() -> None:
    for operation in OPERATIONS:
        assert (Code.UNAUTHENTICATED in operation.every_error) is not operation.public


def test_what_takes_a_body_may_answer_that_it_is_too_large() -> None:
    for operation in OPERATIONS:
        assert (Code.TOO_LARGE in operation.every_error) is (operation.method in ("POST", "PATCH", "PUT"))


def test_a_body_may_be_left_out_only_where_it_needs_no_field() -> None:
    optional = [operation for operation in OPERATIONS if operation.has_body and not operation.needs_body]
    assert optional
    for operation in optional:
        assert isinstance(msgspec.json.decode(b"{}", type=operation.takes), operation.takes)


def test_the_document_for_people_tells_of_every_operation() -> None:
    text = DOCUMENT.read_text()
    for operation in OPERATIONS:
        address = operation.path.removeprefix(PREFIX) or operation.path
        assert f"`{operation.method} {address}`" in text
