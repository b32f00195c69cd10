"""Tells of what is written into the store: every change of state passes there, whoever makes it, if it is true.

The stores stay as they are; what is told of is named here, method by method. A method that is not named passes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from hearth.control.events import Events
from hearth.jobs.events import Moment, StepEvent
from hearth.model import Heat, Job, NamedVolume, Publication, Sandbox, Snapshot, StepPhase, VolumePlacement
from hearth.store.base import JobStore, Page, SandboxStore, SnapshotStore, Store
from hearth.store.publication_store import PublicationStore
from hearth.store.volume_store import VolumeStore

Told = Callable[..., None]
"""Called with what a method gave, then with what it was given."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """Whose something is and what it is called, for events that come when its row is gone."""

    owner: str | None
    name: str


class Reporter:
    """Turns writes into events."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._known: dict[str, Known] = {}
        self._progress: dict[str, tuple[str, float]] = {}

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
            undoing = event.phase is StepPhase.UNDO
            self._progress[event.job_id] = (event.step, percent)
            data = {"stage": event.step, "percent": round(percent, 1), "undoing": undoing, "subject": event.subject}
            self._tell("job.progress", event.job_id, data)

    def progress(self, job_id: str) -> tuple[str, float] | None:
        """Give the step a job is at and how much of it is done, in percent, while it runs here."""
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
