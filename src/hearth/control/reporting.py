"""Tells of what is written into the store: every change of state passes there, whoever makes it, if it is true.

The stores stay as they are; what is told of is named here, method by method. A method that is not named passes.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from hearth.control.events import Events
from hearth.jobs.events import Moment, StepEvent
from hearth.model import Heat, Job, NamedVolume, Publication, Sandbox, Snapshot, StepPhase, VolumePlacement
from hearth.store.base import JobStore, Page, SandboxStore, SnapshotStore, Store
from hearth.store.publication_store import PublicationStore
from hearth.store.template_store import Template, TemplateStore
from hearth.store.volume_store import VolumeStore

TELL_EVERY_S = 0.5
"""Events of one job's bytes come no more often."""
WINDOW_S = 5.0
RATE_AFTER_S = 0.2
"""A rate of less would be chance."""
Told = Callable[..., None]
"""Called with what a method gave, then with what it was given."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """Whose something is and what it is called, for events that come when its row is gone."""

    owner: str | None
    name: str


@dataclass(frozen=True, kw_only=True)
class Progressed:
    """How far a job is: its step, percent of the whole; bytes of the step, and how many came a second of late."""

    stage: str
    percent: float
    done: int | None = None
    total: int | None = None
    rate_bps: float | None = None

    @property
    def eta_s(self) -> float | None:
        """Seconds that the step may still take."""
        if not self.rate_bps or self.total is None or self.done is None:
            return None
        return max(0.0, (self.total - self.done) / self.rate_bps)


@dataclass(frozen=True, kw_only=True)
class _Window:
    """What a rate is reckoned over: from the last mark but one, so that it follows what is now and does not jump."""

    stage: str
    since_s: float
    since_done: int
    mark_s: float
    mark_done: int

    def moved(self, now_s: float, done: int) -> _Window:
        if now_s - self.mark_s < WINDOW_S:
            return self
        return replace(self, since_s=self.mark_s, since_done=self.mark_done, mark_s=now_s, mark_done=done)

    def rate_bps(self, now_s: float, done: int) -> float | None:
        took_s = now_s - self.since_s
        return (done - self.since_done) / took_s if took_s >= RATE_AFTER_S and done > self.since_done else None


class Reporter:
    """Turns writes into events."""

    def __init__(self, events: Events, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._events = events
        self._known: dict[str, Known] = {}
        self._progress: dict[str, Progressed] = {}
        self._told_s: dict[str, float] = {}
        self._windows: dict[str, _Window] = {}

    def watch(self, store: Store) -> Store:
        """Give a store that tells; ``store`` itself does not."""
        return cast("Store", _Telling(store, self))

    def heat(self, sandbox_id: str, heat: Heat) -> None:
        """Tell that a sandbox became hot, warm or cold."""
        self._tell(f"sandbox.{heat.value}", sandbox_id)

    def step(self, event: StepEvent) -> None:
        """Tell of a step of a job."""
        if event.moment is Moment.STARTED:
            percent = 100.0 * (event.number - 1) / event.count
            if event.job_id in self._told_s:  # it tells by itself, and steps are not of equal length
                percent = self._progress[event.job_id].percent
            undoing = event.phase is StepPhase.UNDO
            self._progress[event.job_id] = Progressed(stage=event.step, percent=percent)
            data = {"stage": event.step, "percent": round(percent, 1), "undoing": undoing, "subject": event.subject}
            self._tell("job.progress", event.job_id, data)

    def work(self, job_id: str, stage: str, percent: float, done: int, total: int) -> None:
        """Tell how much of a step is done, in bytes, and of the whole job, in percent; called as often as one likes."""
        now_s = self._monotonic()
        window = self._windows.get(job_id)
        is_new = window is None or window.stage != stage or done < window.since_done
        if window is None or is_new:
            window = _Window(stage=stage, since_s=now_s, since_done=done, mark_s=now_s, mark_done=done)
        window = self._windows[job_id] = window.moved(now_s, done)
        at = Progressed(stage=stage, percent=percent, done=done, total=total, rate_bps=window.rate_bps(now_s, done))
        self._progress[job_id] = at
        if is_new or now_s - self._told_s.get(job_id, 0.0) >= TELL_EVERY_S:
            self._told_s[job_id] = now_s
            data = {
                "stage": stage,
                "percent": round(percent, 1),
                "bytes_processed": done,
                "bytes_total": total,
                "rate_bps": at.rate_bps,
                "eta_s": at.eta_s,
            }
            self._tell("job.progress", job_id, data)

    def progress(self, job_id: str) -> Progressed | None:
        """Tell how far a job is, while it runs here."""
        return self._progress.get(job_id)

    def sandboxes(self) -> Mapping[str, Told]:
        """Tell of sandboxes."""
        see = self._see_sandbox

        def changed(sandbox: Sandbox, *_: object) -> None:
            see(sandbox)
            cause = sandbox.exit_cause
            data = {} if cause is None else {"exit_cause": {"kind": cause.kind.value, "detail": cause.detail}}
            self._tell(f"sandbox.{sandbox.state.value}", sandbox.id, data)

        def updated(sandbox: Sandbox, *_: object) -> None:
            see(sandbox)
            self._tell("sandbox.changed", sandbox.id)

        return {
            "create": lambda _, sandbox, *__: changed(sandbox),
            "get": see,
            "resolve": see,
            "list": _of_each(see),
            "transition": changed,
            "update": updated,
            "delete": lambda _, sandbox_id, *__: self._gone("sandbox.destroyed", sandbox_id),
        }

    def snapshots(self) -> Mapping[str, Told]:
        """Tell of checkpoints."""

        def changed(snapshot: Snapshot, *_: object) -> None:
            self._known[snapshot.id] = Known(owner=snapshot.owner, name=snapshot.name)
            self._tell(f"snapshot.{snapshot.state.value}", snapshot.id, {"sandbox": snapshot.sandbox_id})

        return {
            "create": lambda _, snapshot, *__: changed(snapshot),
            "transition": changed,
            "delete": lambda _, snapshot_id, *__: self._gone("snapshot.deleted", snapshot_id),
        }

    def volumes(self) -> Mapping[str, Told]:
        """Tell of volumes."""

        def see(volume: NamedVolume, *_: object) -> None:
            self._known[volume.id] = Known(owner=volume.owner, name=volume.name)

        def changed(volume: NamedVolume, *_: object) -> None:
            see(volume)
            self._tell(f"volume.{volume.state.value}", volume.id, {"size_mb": volume.size_mib})

        def placed(_: object, placement: VolumePlacement, *__: object) -> None:
            data = {"sandbox": placement.sandbox_id, "mount": placement.mount, "read_only": placement.read_only}
            self._tell("volume.attached", placement.volume_id, data)

        return {
            "create": lambda _, volume, *__: changed(volume),
            "get": see,
            "resolve": see,
            "list": _of_each(see),
            "transition": changed,
            "place": placed,
            "displace": lambda _, sandbox_id, volume_id, *__: self._tell(
                "volume.detached", volume_id, {"sandbox": sandbox_id}
            ),
            "delete": lambda _, volume_id, *__: self._gone("volume.deleted", volume_id),
        }

    def templates(self) -> Mapping[str, Told]:
        """Tell of users' templates."""

        def see(template: Template, *_: object) -> None:
            self._known[template.id] = Known(owner=template.owner, name=template.name)

        def told(kind: str) -> Told:
            def tell(template: Template, *_: object) -> None:
                see(template)
                self._tell(kind, template.id)

            return tell

        created = told("template.created")
        return {
            "create": lambda _, template, *__: created(template),
            "resolve": see,
            "replace": told("template.changed"),
            "delete": lambda _, template_id, *__: self._gone("template.deleted", template_id),
        }

    def publications(self) -> Mapping[str, Told]:
        """Tell of published ports."""

        def tell(kind: str, publication: Publication) -> None:
            self._tell(kind, publication.sandbox_id, {"port": publication.port, "alias": publication.alias})

        return {
            "create": lambda _, publication, *__: tell("port.published", publication),
            "delete": lambda publication, *_: tell("port.unpublished", publication),
        }

    def jobs(self) -> Mapping[str, Told]:
        """Tell of jobs."""

        def changed(job: Job, *_: object) -> None:
            self._known[job.id] = Known(owner=job.owner, name=job.kind)
            data: dict[str, object] = {"kind": job.kind, "subject": job.subject}
            if job.error is not None:
                data["error"], data["code"] = job.error.brief, job.error.code.value
            self._tell(f"job.{job.state.value}", job.id, data)
            if job.state.is_final:
                self._known.pop(job.id)
                self._progress.pop(job.id, None)
                self._told_s.pop(job.id, None)
                self._windows.pop(job.id, None)

        return {"create": lambda _, job, *__: changed(job), "claim": changed, "transition": changed}

    def _see_sandbox(self, sandbox: Sandbox, *_: object) -> None:
        self._known[sandbox.id] = Known(owner=sandbox.owner, name=sandbox.spec.name)

    def _gone(self, kind: str, subject: str) -> None:
        self._tell(kind, subject)
        self._known.pop(subject, None)

    def _tell(self, kind: str, subject: str, data: Mapping[str, object] | None = None) -> None:
        known = self._known.get(subject, Known(owner=None, name=""))
        self._events.tell(kind, subject, owner=known.owner, name=known.name, data=data)


class _Telling:
    """A store whose parts tell; what else it has passes through."""

    def __init__(self, store: Store, reporter: Reporter) -> None:
        self._store = store
        self.sandboxes = cast("SandboxStore", _Watched(store.sandboxes, reporter.sandboxes()))
        self.snapshots = cast("SnapshotStore", _Watched(store.snapshots, reporter.snapshots()))
        self.volumes = cast("VolumeStore", _Watched(store.volumes, reporter.volumes()))
        self.templates = cast("TemplateStore", _Watched(store.templates, reporter.templates()))
        self.publications = cast("PublicationStore", _Watched(store.publications, reporter.publications()))
        self.jobs = cast("JobStore", _Watched(store.jobs, reporter.jobs()))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class _Watched:
    """One part of a store; after a method that is named in ``told`` came to its end, that is called."""

    def __init__(self, target: object, told: Mapping[str, Told]) -> None:
        self._target = target
        for name, tell in told.items():
            setattr(self, name, _then(target, name, tell))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


def _of_each(see: Told) -> Told:
    def seen(page: Page[Any], *_: object) -> None:
        for each in page.items:
            see(each)

    return seen


def _then(target: object, name: str, tell: Told) -> Callable[..., Awaitable[Any]]:
    async def call(*arguments: Any, **named: Any) -> Any:
        result = await getattr(target, name)(*arguments, **named)
        tell(result, *arguments, *named.values())
        return result

    return call
