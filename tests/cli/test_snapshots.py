"""The tree of checkpoints is drawn whole, whatever is missing of it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hearth.api.sleep_schemas import SnapshotView
from hearth.cli.commands.snapshots import tree


def snapshot(name: str, parent: str | None) -> SnapshotView:
    return SnapshotView(
        id=f"cp-{name}",
        name=name,
        state="ready",
        sandbox_id="sb-1",
        sandbox_name="web",
        parent=f"cp-{parent}" if parent else None,
        image="debian",
        cpus=1,
        memory_mb=256,
        size_bytes=0,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


DRAWN: list[tuple[str, list[tuple[str, str | None]], list[str]]] = [
    ("none", [], []),
    ("one", [("a", None)], ["a"]),
    ("a chain", [("a", None), ("b", "a"), ("c", "b")], ["a", "└─ b", "   └─ c"]),
    (
        "branches",
        [("a", None), ("b", "a"), ("c", "a"), ("d", "b"), ("e", None)],
        ["a", "├─ b", "│  └─ d", "└─ c", "e"],
    ),
    ("a parent that is gone", [("b", "a"), ("c", "b")], ["b", "└─ c"]),
]


@pytest.mark.parametrize(("pairs", "lines"), [row[1:] for row in DRAWN], ids=[row[0] for row in DRAWN])
def test_a_tree_is_drawn_parents_first(pairs: list[tuple[str, str | None]], lines: list[str]) -> None:
    drawn = tree([snapshot(name, parent) for name, parent in pairs])
    assert [branch + each.name for branch, each in drawn] == lines


def test_a_long_chain_is_drawn_without_end_of_the_stack() -> None:
    chain = [snapshot("0", None), *(snapshot(str(number), str(number - 1)) for number in range(1, 3000))]
    assert len(list(tree(chain))) == 3000
