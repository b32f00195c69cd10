"""All rows there are, in the order they are measured. A new family is one file and one line here."""

from __future__ import annotations

from collections.abc import Sequence

from hearth.bench.row import Row
from hearth.bench.rows import (
    agent,
    api,
    api_reads,
    api_terminals,
    cli,
    daemon,
    network,
    provisioning,
    proxy,
    proxy_wake,
    vm,
    vm_crowd,
    vm_heat,
    volumes,
    wire,
)
from hearth.errors import InvalidInput

ROWS: tuple[Row, ...] = (
    *wire.ROWS,
    *agent.ROWS,
    *api.ROWS,
    *api_reads.ROWS,
    *api_terminals.ROWS,
    *cli.ROWS,
    *daemon.ROWS,
    *network.ROWS,
    *proxy.ROWS,
    *proxy_wake.ROWS,
    *vm.ROWS,
    *vm_heat.ROWS,
    *vm_crowd.ROWS,
    *volumes.ROWS,
    *provisioning.ROWS,
)


def choose(names: Sequence[str], rows: Sequence[Row] = ROWS, *, full: bool = False) -> list[Row]:
    """Give the rows with these names, in the table's order; without names all but those that take minutes.

    Args:
        full: without names, those too.

    Raises:
        InvalidInput: there is no such row; the resolution lists those there are.
    """
    known = [row.name for row in rows]
    for name in names:
        if name not in known:
            raise InvalidInput(
                "unknown row", details=f"there is no row {name!r}", resolution=f"rows: {', '.join(known)}", field="ROW"
            )
    if names:
        return [row for row in rows if row.name in names]
    return [row for row in rows if full or not row.is_long]
