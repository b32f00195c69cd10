"""Errors become problems and come back as the same errors."""

from __future__ import annotations

import pytest

from hearth import errors
from hearth.api.problems import STATUS, error_from, event_of, internal_error, problem_of, status_of
from hearth.api.schemas import Problem
from hearth.errors import Code, HearthError, NotFound

CLASSES = [
    value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, HearthError) and value is not HearthError
]


def test_every_code_has_a_status() -> None:
    assert set(STATUS) == set(Code)
    assert all(400 <= status < 600 for status in STATUS.values())


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_survives_the_way_to_the_caller(kind: type[HearthError]) -> None:
    sent = kind("brief", details="details", resolution="resolution")
    for message in (problem_of(sent, "req-1"), event_of(sent, "req-1")):
        got = error_from(message)
        assert type(got) is kind
        assert (got.brief, got.details, got.resolution, got.code) == ("brief", "details", "resolution", kind.code)


@pytest.mark.parametrize("kind", [HearthError, *CLASSES])
def test_every_error_says_a_next_step(kind: type[HearthError]) -> None:
    assert kind("brief").resolution == kind.next_step != ""
    assert kind("brief", resolution="do this").resolution == "do this"


def test_a_caller_of_the_sdk_learns_which_request_it_was() -> None:
    error = error_from(problem_of(NotFound("brief"), "req-7"))
    assert (error.request_id, error.told()["request_id"]) == ("req-7", "req-7")
    assert "request_id" not in NotFound("brief").told()


def test_every_code_but_that_of_the_unexpected_has_a_class() -> None:
    assert {kind.code for kind in CLASSES} == set(Code) - {Code.INTERNAL}
    assert HearthError.code is Code.INTERNAL


def test_a_code_of_a_newer_daemon_counts_as_internal() -> None:
    assert error_from(Problem(error="x", code="not_yet_known")).code is Code.INTERNAL


def test_a_problem_has_exactly_the_fields_of_the_contract() -> None:
    problem = problem_of(NotFound("no such sandbox", details="web"), "req-1")
    assert problem.__struct_fields__ == ("error", "code", "details", "resolution", "request_id")
    assert status_of(NotFound("x")) == 404


def test_an_internal_error_tells_where_to_look_and_nothing_else() -> None:
    error = internal_error("req-7")
    assert status_of(error) == 500
    assert "req-7" in error.resolution
