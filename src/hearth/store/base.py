"""What every store offers. ``sql`` keeps it in a database, ``memory`` in this process; both pass tests/contract.

HearthError
├── NotFound           no such row, or not one the caller may know of
├── Conflict
│   ├── SandboxExists  the owner has a sandbox of that name; carries it
│   ├── AliasTaken     something else is published under that alias
│   ├── SnapshotNeeded other checkpoints lie over it
│   ├── JobUnderWay    a job that has not ended holds what this one wants; carries it
│   └── LeaseLost      somebody else works on the job now
├── NoSpace            the disk under the database is full
├── Unavailable        another process holds the database for longer than the busy timeout
├── StoreDamaged       the file is not a database any more
└── StoreTooNew        a later version of hearth wrote it
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Protocol

from hearth.errors import Code, Conflict, HearthError
from hearth.model import (
    Ending,
    ExitCause,
    Job,
    Sandbox,
    SandboxChanges,
    SandboxState,
    Snapshot,
    SnapshotState,
)
from hearth.store.answer_store import AnswerStore
from hearth.store.audit_store import AuditStore
from hearth.store.exec_store import ExecStore
from hearth.store.host_store import HostStore
from hearth.store.job_store import JOBS_KEPT_FOR as JOBS_KEPT_FOR
from hearth.store.job_store import JOBS_KEPT_PER_SUBJECT as JOBS_KEPT_PER_SUBJECT
from hearth.store.job_store import UNENDED as UNENDED
from hearth.store.job_store import JobStore as JobStore
from hearth.store.page import FIRST_PAGE as FIRST_PAGE
from hearth.store.page import MAX_PAGE as MAX_PAGE
from hearth.store.page import Page as Page
from hearth.store.page import PageRequest as PageRequest
from hearth.store.publication_store import PublicationStore
from hearth.store.quota_store import QuotaStore
from hearth.store.secret_store import SecretStore
from hearth.store.template_store import TemplateStore
from hearth.store.user_store import UserStore as UserStore
from hearth.store.volume_store import VolumeStore
from hearth.store.webhook_store import WebhookStore

ENDINGS_KEPT_FOR = timedelta(days=30)
ENDINGS_KEPT_PER_OWNER = 1000
CHANGEABLE = tuple(state for state in SandboxState if state is not SandboxState.DESTROYING)
"""States in which a sandbox's name, labels and the like may be changed."""


class StoreDamaged(HearthError):
    """The database cannot be read; ``details`` names the file."""


class StoreTooNew(HearthError):
    """The database was written by a later version of hearth."""

    code = Code.HOST_UNFIT


class SandboxExists(Conflict):
    """The owner already has a sandbox of that name: ``existing``."""

    def __init__(self, existing: Sandbox) -> None:
        super().__init__(
            "the sandbox exists already",
            details=f"{existing.spec.name} is {existing.id} ({existing.state})",
            resolution="use it, destroy it or choose another name",
            field="name",
        )
        self.existing = existing


class SnapshotNeeded(Conflict):
    """Checkpoints were made from this one and lie over its disk; ``details`` names them."""


class AliasTaken(Conflict):
    """Something else is published under that alias."""


class JobUnderWay(Conflict):
    """Another job, which has not ended, holds what this one wants to: ``job``."""

    def __init__(self, job: Job) -> None:
        super().__init__(
            "another job is at work on it",
            details=f"{job.id} is {job.state}",
            resolution="wait for its end, or cancel it",
        )
        self.job = job


class LineFull(Conflict):
    """As many jobs of a kind as there may be have not ended: ``count``."""

    def __init__(self, kind: str, count: int) -> None:
        super().__init__(
            "too many jobs are in line",
            details=f"{count} of {kind} have not ended",
            resolution="wait, and try again",
        )
        self.count = count


class LeaseLost(Conflict):
    """The job's lease belongs to somebody else, or the job has ended: stop, and leave what it made alone."""


class SandboxStore(Protocol):
    """Sandboxes. ``owner`` None stands for an administrator, who sees everybody's."""

    async def create(self, sandbox: Sandbox) -> None:
        """Raises SandboxExists (judged by the unique index of owner and name), NotFound without the owner.

        Raises InvalidInput for NUL characters in labels or env.
        """
        ...

    async def get(self, sandbox_id: str) -> Sandbox: ...

    async def resolve(self, owner: str | None, reference: str) -> Sandbox:
        """Find by id, else by name. Raises NotFound, and Conflict when a name fits sandboxes of several owners."""
        ...

    async def list(
        self,
        owner: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        states: Collection[SandboxState] = (),
        page: PageRequest = FIRST_PAGE,
    ) -> Page[Sandbox]:
        """Those that carry all ``labels`` and are in one of ``states`` (none given: in any)."""
        ...

    async def count(self, owner: str | None) -> int: ...

    async def transition(
        self,
        sandbox_id: str,
        expected: Collection[SandboxState],
        new: SandboxState,
        *,
        error: str | None = None,
        exit_cause: ExitCause | None = None,
    ) -> Sandbox:
        """Compare-and-set of the state; ``error`` replaces the stored one, ``exit_cause`` unless it is None.

        STOPPED stamps ``stopped_at``; RUNNING wipes it out, together with the cause of the last end.

        Raises:
            NotFound: no such sandbox.
            Conflict: the state is not one of ``expected``.
        """
        ...

    async def update(
        self,
        sandbox_id: str,
        changes: SandboxChanges,
        *,
        expected: Collection[SandboxState] = CHANGEABLE,
    ) -> Sandbox:
        """Change what may be changed of a living sandbox, all of it or nothing.

        Raises:
            NotFound: no such sandbox.
            SandboxExists: its owner has another of the new name.
            Conflict: the state is not one of ``expected``.
            InvalidInput: NUL characters in labels.
        """
        ...

    async def set_origin(self, sandbox_id: str, origin: str | None, *, expected: str | None = None) -> Sandbox:
        """Say which snapshot the disk lies over, if it is ``expected`` so far. Raises NotFound, Conflict."""
        ...

    async def origins(self) -> Mapping[str, int]:
        """Count for each snapshot the sandboxes, in whatever state, whose disks lie over it."""
        ...

    async def delete(self, sandbox_id: str, expected: Collection[SandboxState]) -> None:
        """Forget it if its state is one of ``expected``. Raises NotFound, Conflict."""
        ...


class SnapshotStore(Protocol):
    """Named checkpoints. ``owner`` None stands for an administrator, who sees everybody's."""

    async def create(self, snapshot: Snapshot) -> None:
        """Raises Conflict when the owner has one of that name or the id is taken, NotFound without owner or parent."""
        ...

    async def get(self, snapshot_id: str) -> Snapshot: ...

    async def resolve(self, owner: str | None, reference: str) -> Snapshot:
        """Find by id, else by name among those not DELETING.

        Raises:
            NotFound: there is none.
            Conflict: a name fits checkpoints of several owners.
        """
        ...

    async def list(
        self,
        owner: str | None,
        *,
        sandbox_id: str | None = None,
        states: Collection[SnapshotState] = (),
        page: PageRequest = FIRST_PAGE,
    ) -> Page[Snapshot]:
        """Those taken of ``sandbox_id`` (None: of any) and in one of ``states`` (none given: in any)."""
        ...

    async def children_of(self, snapshot_id: str) -> Sequence[Snapshot]:
        """Give the checkpoints whose parent it is, oldest first; none when there is no such snapshot."""
        ...

    async def transition(
        self,
        snapshot_id: str,
        expected: Collection[SnapshotState],
        new: SnapshotState,
        *,
        size_bytes: int | None = None,
    ) -> Snapshot:
        """Compare-and-set of the state; ``size_bytes`` replaces the stored one unless it is None.

        Raises:
            NotFound: no such snapshot.
            Conflict: the state is not one of ``expected``, or one of DELETING was to come back and its name is taken.
        """
        ...

    async def delete(self, snapshot_id: str, expected: Collection[SnapshotState]) -> None:
        """Forget it if its state is one of ``expected``.

        Raises:
            NotFound: no such snapshot.
            SnapshotNeeded: others have it for a parent.
            Conflict: the state is not one of ``expected``.
        """
        ...


class EndingStore(Protocol):
    """What is remembered of destroyed sandboxes, for ENDINGS_KEPT_FOR and at most ENDINGS_KEPT_PER_OWNER of each owner.

    ``owner`` None stands for an administrator, who sees everybody's.
    """

    async def record(self, ending: Ending) -> None:
        """Remember an end and forget those too old or too many. Of one sandbox the first word counts.

        Raises:
            NotFound: no such owner.
        """
        ...

    async def find(self, owner: str | None, reference: str) -> Ending:
        """Find by the sandbox's id, else the last to end of those that bore that name. Raises NotFound."""
        ...

    async def list(self, owner: str | None, *, page: PageRequest = FIRST_PAGE) -> Page[Ending]:
        """Those that ended first come first."""
        ...


class Store(Protocol):
    """Everything hearth remembers.

    Sandboxes, snapshots, volumes, commands and publications are seen by the host they are on alone; all else is
    everybody's.
    """

    @property
    def users(self) -> UserStore: ...

    @property
    def sandboxes(self) -> SandboxStore: ...

    @property
    def jobs(self) -> JobStore: ...

    @property
    def webhooks(self) -> WebhookStore: ...

    @property
    def snapshots(self) -> SnapshotStore: ...

    @property
    def endings(self) -> EndingStore: ...

    @property
    def volumes(self) -> VolumeStore: ...

    @property
    def quotas(self) -> QuotaStore: ...

    @property
    def audit(self) -> AuditStore: ...

    @property
    def secrets(self) -> SecretStore: ...

    @property
    def templates(self) -> TemplateStore: ...

    @property
    def publications(self) -> PublicationStore: ...

    @property
    def execs(self) -> ExecStore: ...

    @property
    def answers(self) -> AnswerStore: ...

    @property
    def hosts(self) -> HostStore: ...

    async def close(self) -> None:
        """Finish what is under way and let go of the database; doing it twice is fine."""
        ...
