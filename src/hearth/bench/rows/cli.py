"""``cli.*``: whole processes of the ``hearth`` command, from start to exit."""

from __future__ import annotations

import os

from hearth.bench.daemon import sandbox
from hearth.bench.processes import DEVNULL_ALL, find_program, python_start, spawn_and_wait
from hearth.bench.row import Measurement, Row, at_most
from hearth.bench.samples import Effort, alternate, timed

NAME = "bench-cli"


def measure_exec(effort: Effort) -> Measurement:
    """Run ``hearth exec NAME -- true`` against a daemon with the engine that runs bare agents."""
    argv = [find_program("hearth"), "exec", NAME, "--", "true"]
    with sandbox("local", NAME) as (daemon, _client, _machine):
        environment = daemon.environment

        def run() -> None:
            spawn_and_wait(argv, environment, DEVNULL_ALL)

        ours, theirs = alternate(timed(run), timed(python_start), effort.samples(100, 10, warm_up=2))
    return Measurement(measured=ours, reference=theirs)


def measure_version(effort: Effort) -> Measurement:
    """Run ``hearth --version``."""
    argv = [find_program("hearth"), "--version"]
    environment = dict(os.environ)

    def run() -> None:
        spawn_and_wait(argv, environment, DEVNULL_ALL)

    ours, theirs = alternate(timed(run), timed(python_start), effort.samples(200, 20, warm_up=2))
    return Measurement(measured=ours, reference=theirs)


ROWS = (
    Row(
        name="cli.exec",
        what="hearth exec NAME -- true, the whole process",
        reference="python -c pass",
        goals=at_most(added_ms=100),
        measure=measure_exec,
    ),
    Row(
        name="cli.version",
        what="hearth --version, the whole process",
        reference="python -c pass",
        goals=at_most(p50_ms=100),
        measure=measure_version,
    ),
)
