"""A key that is remembered opens no longer than it may."""

from __future__ import annotations

from hearth.control.known_keys import MAX_KEYS, REMEMBERED_S, KnownKeys


class Time:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_caller_is_known_for_a_second() -> None:
    time = Time()
    known: KnownKeys[str] = KnownKeys(time)
    known.keep("digest", "anna", known.generation)
    time.now_s += REMEMBERED_S / 2
    assert known.get("digest") == "anna"
    assert known.get("another") is None
    time.now_s += REMEMBERED_S / 2
    assert known.get("digest") is None


def test_a_change_makes_everybody_unknown() -> None:
    known: KnownKeys[str] = KnownKeys(Time())
    known.keep("digest", "anna", known.generation)
    known.forget()
    assert known.get("digest") is None


def test_what_was_read_before_a_change_and_comes_late_is_not_kept() -> None:
    known: KnownKeys[str] = KnownKeys(Time())
    generation = known.generation
    known.forget()
    known.keep("digest", "anna", generation)
    assert known.get("digest") is None


def test_it_does_not_grow_without_bound() -> None:
    known: KnownKeys[str] = KnownKeys(Time())
    for number in range(3 * MAX_KEYS):
        known.keep(str(number), "anna", known.generation)
        assert known.get(str(number)) == "anna"
    assert sum(known.get(str(number)) is not None for number in range(3 * MAX_KEYS)) <= MAX_KEYS
