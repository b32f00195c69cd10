"""`hearth jobs`: what the daemon does for you and did: lists, shows and cancels jobs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import get_args

from hearth.api.event_schemas import JobStatus, JobView
from hearth.cli.arguments import add_actions, add_json
from hearth.cli.each import to_each
from hearth.cli.show import age, duration, show_json, show_table, size
from hearth.sdk.client import Client

COLUMNS = ("job", "kind", "subject", "status", "stage", "percent", "age", "error")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)
    parser.set_defaults(status=[])
    actions = add_actions(parser)

    def action(name: str, text: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=text, description=text)

    listing = action("list", "list jobs (the default)")
    listing.add_argument(
        "--status", action="append", default=[], choices=get_args(JobStatus), help="only these; repeatable"
    )
    add_json(listing, again=True)
    inspect = action("inspect", "show one job with what its steps took")
    inspect.add_argument("job", help="id")
    add_json(inspect, again=True)
    cancel = action("cancel", "end jobs that are under way and undo what they did")
    cancel.add_argument("job", nargs="+", help="id")
    add_json(cancel, again=True)


def run(arguments: argparse.Namespace) -> int:
    with Client() as client:
        match arguments.action:
            case "inspect":
                return _show(client.events.job(arguments.job), json=arguments.json)
            case "cancel":
                return to_each(arguments.job, client.events.cancel, json=arguments.json)
            case _:
                return _list(client.events.jobs(*arguments.status), json=arguments.json)


def _list(jobs: Sequence[JobView], *, json: bool) -> int:
    if json:
        show_json(jobs)
    else:
        show_table(COLUMNS, [_row(job) for job in jobs])
    return 0


def _show(job: JobView, *, json: bool) -> int:
    if json:
        show_json(job)
        return 0
    show_table(COLUMNS, [_row(job)])
    show_table(("step", "ms"), [(step.name, f"{step.duration_ms:.1f}") for step in job.steps])
    if told := _more(job):
        show_table(("of this job", "it is"), told)
    return 0


def _more(job: JobView) -> list[tuple[str, str]]:
    """Give what is known of one job beside its line."""
    at, problem = job.progress, job.error
    rows = [
        ("your name for it", job.correlation_id),
        ("before it in line", None if job.queue_position is None else str(job.queue_position)),
        ("attempts", str(job.attempts) if job.attempts > 1 else None),
        ("done", f"{size(at.bytes_processed or 0)} of {size(at.bytes_total)}" if at.bytes_total else None),
        ("left", None if at.eta_s is None else duration(at.eta_s)),
        ("volume", job.volume_path),
        ("on host", job.host),
        ("grown", job.grown),
        ("image", job.image_path),
        ("from the cache", None if job.cache_hit is None or job.volume_path is None else _yes(job.cache_hit)),
        ("error", problem and problem.error),
        ("in detail", problem and problem.details),
        ("what to do", problem and problem.resolution),
        ("field", problem and problem.field),
    ]
    return [(name, value) for name, value in rows if value]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _row(job: JobView) -> tuple[str, ...]:
    percent = job.progress.percent
    return (
        job.job_id,
        job.kind,
        job.subject,
        job.status,
        job.progress.stage or "-",
        "-" if percent is None else f"{percent:.0f}",
        age(job.created_at),
        job.error.error if job.error is not None else "-",
    )
