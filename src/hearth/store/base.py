"""What every store offers. ``sql`` keeps it in a database, ``memory`` in this process; both pass tests/contract.

HearthError
├── NotFound           no such row, or not one the caller may know of
├── Conflict
│   ├── SandboxExists  the owner has a sandbox of that name; carries it
│   └── LeaseLost      somebody else works on the job now
├── NoSpace            the disk under the database is full
├── Unavailable        another process holds the database for longer than the busy timeout
├── StoreDamaged       the file is not a database any more
└── StoreTooNew        a later version of hearth wrote it
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from hearth.errors import Code, Conflict, HearthError
from hearth.model import ApiKey, Job, JobError, JobState, Sandbox, SandboxState, StepRecord, User

MAX_PAGE = 1000
"""Most rows one call of a ``list`` gives."""

T = TypeVar("T")


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


class LeaseLost(Conflict):
    """The job's lease belongs to somebody else, or the job has ended: stop, and leave what it made alone."""


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """A slice of a list, oldest first; ``next_cursor`` is None on the last page."""

    items: Sequence[T]
    next_cursor: str | None


@dataclass(frozen=True, kw_only=True)
class PageRequest:
    """Which slice: ``cursor`` is the ``next_cursor`` of the page before, ``limit`` 1 to MAX_PAGE."""

    limit: int = 100
    cursor: str | None = None


FIRST_PAGE = PageRequest()


class UserStore(Protocol):
    """Users and their API keys. Of a key only its SHA-256 (``digest``) is kept."""

    async def create(self, user: User) -> None:
        """Raises Conflict when the id or the name is taken."""
        ...

    async def get(self, user_id: str) -> User: ...

    async def find(self, name: str) -> User: ...

    async def list(self, page: PageRequest = FIRST_PAGE) -> Page[User]: ...

    async def delete(self, user_id: str) -> None:
        """Remove a user and the keys. Raises Conflict while the user owns sandboxes."""
        ...

    async def add_key(self, key: ApiKey, digest: str) -> None:
        """Raises NotFound without the user, Conflict when the key is known."""
        ...

    async def authenticate(self, digest: str) -> tuple[User, ApiKey]:
        """Tell whose key it is. Raises Unauthenticated, in the same words for unknown, expired and revoked."""
        ...

    async def list_keys(self, user_id: str) -> Sequence[ApiKey]:
        """All keys of a user, oldest first, expired and revoked ones too."""
        ...

    async def revoke_key(self, key_id: str) -> None:
        """End a key now. Raises NotFound when there is none or it is revoked already."""
        ...


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
    ) -> Sandbox:
        """Compare-and-set of the state; ``error`` replaces the stored one. Raises NotFound, Conflict."""
        ...

    async def delete(self, sandbox_id: str, expected: Collection[SandboxState]) -> None:
        """Forget it if its state is one of ``expected``. Raises NotFound, Conflict."""
        ...


class JobStore(Protocol):
    """Jobs and their leases. Leases are reckoned by the store's clock."""

    async def create(self, job: Job) -> None:
        """Raises Conflict when the id is taken."""
        ...

    async def get(self, job_id: str) -> Job: ...

    async def list(
        self,
        *,
        subject: str | None = None,
        states: Collection[JobState] = (),
        page: PageRequest = FIRST_PAGE,
    ) -> Page[Job]: ...

    async def claimable(self, *, states: Collection[JobState], limit: int = 100) -> Sequence[Job]:
        """Jobs in ``states`` that nobody holds a valid lease on, oldest first; claiming one may still fail."""
        ...

    async def claim(
        self,
        job_id: str,
        owner: str,
        *,
        expected: Collection[JobState],
        new: JobState,
        lease_s: float,
        displacing: str | None = None,
    ) -> Job:
        """Take the lease for ``lease_s`` seconds, count an attempt and set the state, all in one compare-and-set.

        Args:
            displacing: a lease owner known to be dead (the data directory's lock proves it): its lease counts as free.

        Raises:
            NotFound: no such job.
            LeaseLost: another owner's lease has not run out.
            Conflict: the state is not one of ``expected``.
        """
        ...

    async def renew(self, job_id: str, owner: str, *, lease_s: float) -> None:
        """Extend the lease (heartbeat). Raises LeaseLost."""
        ...

    async def record(self, job_id: str, owner: str, *, step: str, steps: Sequence[StepRecord]) -> None:
        """Note the step about to begin and what the earlier ones took. Raises LeaseLost."""
        ...

    async def transition(
        self,
        job_id: str,
        expected: Collection[JobState],
        new: JobState,
        *,
        owner: str | None,
        error: JobError | None = None,
        steps: Sequence[StepRecord] | None = None,
    ) -> Job:
        """Compare-and-set of the state, by the lease's holder (``owner``) or on a job without a lease (None).

        ``error`` and ``steps`` replace the stored ones unless they are None. A final state ends the lease and stamps
        ``finished_at``.

        Raises:
            NotFound: no such job.
            LeaseLost: ``owner`` does not hold the lease.
            Conflict: the state is not one of ``expected``.
        """
        ...


class Store(Protocol):
    """Everything hearth remembers."""

    @property
    def users(self) -> UserStore: ...

    @property
    def sandboxes(self) -> SandboxStore: ...

    @property
    def jobs(self) -> JobStore: ...

    async def close(self) -> None:
        """Finish what is under way and let go of the database; doing it twice is fine."""
        ...
