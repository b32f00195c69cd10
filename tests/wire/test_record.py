from __future__ import annotations

import pytest

from hearth.wire.record import Bounds, Record, field, fields
from hearth.wire.runtime_typing import NamedTuple


class Shape(Record):
    name: str
    sides: int = field(default=3, bounds=Bounds(low=3, high=9))
    labels: list[str] = field(default_factory=list)
    secret: str = field(repr=False)


class Solid(Shape):
    height: float = 1.0


class Point(NamedTuple):
    x: int
    y: int = 5


def test_defaults_are_taken_and_made_anew_for_each() -> None:
    first, second = Shape(name="a", secret="s"), Shape(name="a", secret="s")
    first.labels.append("changed")
    assert (first.sides, second.labels) == (3, [])


def test_a_subclass_has_the_fields_of_its_base_first() -> None:
    assert [found.name for found in fields(Solid)] == ["name", "sides", "labels", "secret", "height"]
    assert [found.name for found in fields(Shape)] == ["name", "sides", "labels", "secret"]
    assert Solid(name="a", secret="s", height=2.0).sides == 3


@pytest.mark.parametrize(
    ("values", "wrong"),
    [
        ({"secret": "s"}, "name"),
        ({"name": "a"}, "secret"),
        ({"name": "a", "secret": "s", "colour": 1}, "colour"),
        ({"name": "a", "colour": 1}, "secret, colour"),
    ],
)
def test_a_missing_or_unknown_field_is_refused_by_name(values: dict[str, object], wrong: str) -> None:
    with pytest.raises(TypeError, match=f"^Shape: missing or unknown: {wrong}$"):
        Shape(**values)  # type: ignore[arg-type]


def test_a_record_cannot_be_changed() -> None:
    shape = Shape(name="a", secret="s")
    with pytest.raises(AttributeError):
        shape.name = "b"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        del shape.name
    assert shape.name == "a"


def test_records_are_equal_by_class_and_values() -> None:
    shape = Shape(name="a", secret="s")
    assert shape == Shape(name="a", secret="s", sides=3, labels=[])
    assert shape != Shape(name="a", secret="s", sides=4)
    assert shape != Solid(name="a", secret="s")


def test_the_text_of_a_record_leaves_out_what_is_not_to_be_shown() -> None:
    assert repr(Shape(name="a", secret="hush")) == "Shape(name='a', sides=3, labels=[])"


def test_a_required_field_with_a_specifier_has_no_class_attribute() -> None:
    assert not hasattr(Shape, "secret")
    assert Shape.sides == 3


def test_named_tuples_take_defaults_and_are_tuples() -> None:
    assert Point(1) == (1, 5)
    assert (Point(1, 2).x, Point(1, 2).y) == (1, 2)
    assert Point._make([3, 4]) == Point(3, 4)
    assert repr(Point(1)) == "Point(x=1, y=5)"


@pytest.mark.parametrize("items", [(), (1, 2, 3)])
def test_a_named_tuple_of_the_wrong_length_is_refused(items: tuple[int, ...]) -> None:
    with pytest.raises(TypeError):
        Point(*items)
