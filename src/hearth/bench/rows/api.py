"""``api.*``: the daemon's API over its Unix socket, with the engine that runs bare agents."""

from __future__ import annotations

from hearth.bench import processes
from hearth.bench.daemon import sandbox
from hearth.bench.row import Measurement, Row, at_most
from hearth.bench.rows.agent import TRUE, exec_true
from hearth.bench.samples import Effort, SampleFailed, alternate, timed


def measure_exec(effort: Effort) -> Measurement:
    """Run ``/bin/true`` through SDK, HTTP and daemon, beside an agent asked directly."""
    with sandbox("local", "bench-api") as (_daemon, client, machine), processes.agent() as sockets:

        def through_api() -> None:
            code = client.run(machine.id, [TRUE]).exit_code
            if code != 0:
                raise SampleFailed(f"exit code {code}")

        ours, theirs = alternate(
            timed(through_api), timed(exec_true(sockets.control)), effort.samples(1000, 100, warm_up=20)
        )
    return Measurement(measured=ours, reference=theirs)


ROWS = (
    Row(
        name="api.exec",
        what=f"exec {TRUE} through SDK, HTTP over a Unix socket and daemon",
        reference="agent.exec, asked directly",
        goals=at_most(added_ms=2),
        measure=measure_exec,
    ),
)
