"""Plans as data: which steps are undone after which, and inputs that survive being stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from hearth.jobs.plan import InputUnreadable, Plan, Step


@dataclass(frozen=True, kw_only=True)
class Order:
    name: str
    size_mib: int = 1
    where: str | None = None


async def nothing(_: Order) -> None:
    return None


def plan_of(*names: str) -> Plan[Order]:
    return Plan(kind="k", input_type=Order, steps=[Step(name=name, do=nothing, undo=nothing) for name in names])


@pytest.mark.parametrize(
    ("recorded", "undone"),
    [
        (None, []),
        ("a", ["a"]),
        ("b", ["b", "a"]),
        ("c", ["c", "b", "a"]),
        ("of another version", ["c", "b", "a"]),
    ],
)
def test_steps_begun_are_undone_in_reverse_up_to_the_recorded_one(recorded: str | None, undone: list[str]) -> None:
    assert [step.name for step in plan_of("a", "b", "c").begun(recorded)] == undone


def test_two_steps_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two steps"):
        plan_of("a", "b", "a")


def test_an_input_reads_back_from_its_json_form() -> None:
    order = Order(name="ü", size_mib=7)
    encoded = plan_of().encode(order)
    assert encoded == {"name": "ü", "size_mib": 7, "where": None}
    assert plan_of().decode(encoded) == order


@pytest.mark.parametrize("stored", [{}, {"name": 7}, {"name": "x", "size_mib": "big"}, {"name": Path("x")}])
def test_a_stored_input_of_another_form_is_refused_by_name(stored: dict[str, object]) -> None:
    with pytest.raises(InputUnreadable, match=r"k: .*(name|size_mib)"):
        plan_of().decode(stored)


def test_a_field_an_older_version_did_not_store_gets_its_default() -> None:
    assert plan_of().decode({"name": "x"}) == Order(name="x")
