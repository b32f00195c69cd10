"""A store in this process's memory, part of the product: for embedding, trying things out and tests that need no disk.

Every method runs to its end without awaiting, so that asyncio alone makes each of them atomic.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from hearth.host.clock import Clock, SystemClock
from hearth.model import (
    ExitCause,
    Sandbox,
    SandboxChanges,
    SandboxState,
)
from hearth.quota import DEFAULT_QUOTAS, Amounts, Quotas
from hearth.store import refusals
from hearth.store.base import (
    CHANGEABLE,
    FIRST_PAGE,
    Page,
    PageRequest,
    SandboxExists,
)
from hearth.store.memory_answers import MemoryAnswers
from hearth.store.memory_audit import MemoryAudit
from hearth.store.memory_endings import MemoryEndings
from hearth.store.memory_execs import MemoryExecs
from hearth.store.memory_hosts import MemoryHosts
from hearth.store.memory_jobs import MemoryJobs
from hearth.store.memory_publications import MemoryPublications
from hearth.store.memory_quotas import MemoryQuotas
from hearth.store.memory_secrets import MemorySecrets
from hearth.store.memory_snapshots import MemorySnapshots
from hearth.store.memory_tables import Tables, page_of
from hearth.store.memory_templates import MemoryTemplates
from hearth.store.memory_users import MemoryUsers
from hearth.store.memory_volumes import MemoryVolumes
from hearth.store.memory_webhooks import MemoryWebhooks
from hearth.store.quota_store import amounts_of_sandbox, egress_of


class MemoryStore:
    """``Store`` without a database; it is empty again when the process ends."""

    def __init__(self, *, clock: Clock | None = None, quotas: Quotas = DEFAULT_QUOTAS) -> None:
        tables = Tables()
        clock = clock or SystemClock()
        self.quotas = MemoryQuotas(tables, quotas)
        self.users = MemoryUsers(tables, clock)
        self.sandboxes = MemorySandboxes(tables, clock, self.quotas)
        self.jobs = MemoryJobs(tables, clock)
        self.webhooks = MemoryWebhooks(tables, clock)
        self.snapshots = MemorySnapshots(tables, self.quotas)
        self.endings = MemoryEndings(tables, clock)
        self.volumes = MemoryVolumes(tables, self.quotas)
        self.secrets = MemorySecrets(tables)
        self.templates = MemoryTemplates(tables)
        self.audit = MemoryAudit(tables)
        self.publications = MemoryPublications(tables)
        self.execs = MemoryExecs(tables)
        self.answers = MemoryAnswers(tables, clock)
        self.hosts = MemoryHosts(clock)

    async def close(self) -> None:
        """Nothing is held."""


class MemorySandboxes:
    """``SandboxStore`` in memory."""

    def __init__(self, tables: Tables, clock: Clock, quotas: MemoryQuotas) -> None:
        self._tables = tables
        self._clock = clock
        self._quotas = quotas

    async def create(self, sandbox: Sandbox) -> None:
        refusals.check_storable(sandbox.spec)
        self._check_name(sandbox)
        if sandbox.owner not in self._tables.users:
            raise refusals.not_found("user", sandbox.owner)
        if sandbox.id in self._tables.sandboxes:
            raise refusals.taken("sandbox", sandbox.id)
        self._quotas.enter(sandbox.owner, amounts_of_sandbox(sandbox))
        self._tables.sandboxes[sandbox.id] = sandbox

    async def get(self, sandbox_id: str) -> Sandbox:
        try:
            return self._tables.sandboxes[sandbox_id]
        except KeyError:
            raise refusals.not_found("sandbox", sandbox_id) from None

    async def resolve(self, owner: str | None, reference: str) -> Sandbox:
        visible = self._of(owner)
        for sandbox in visible:
            if sandbox.id == reference:
                return sandbox
        named = [sandbox for sandbox in visible if sandbox.spec.name == reference]
        if not named:
            raise refusals.not_found("sandbox", reference)
        if len(named) > 1:
            raise refusals.ambiguous("sandbox", reference)
        return named[0]

    async def list(
        self,
        owner: str | None,
        *,
        labels: Mapping[str, str] | None = None,
        states: Collection[SandboxState] = (),
        page: PageRequest = FIRST_PAGE,
    ) -> Page[Sandbox]:
        wanted = (labels or {}).items()
        fitting = (
            sandbox
            for sandbox in self._of(owner)
            if (not states or sandbox.state in states) and wanted <= sandbox.spec.labels.items()
        )
        return page_of(fitting, page, lambda sandbox: (sandbox.created_at, sandbox.id))

    async def count(self, owner: str | None) -> int:
        return len(self._of(owner))

    async def transition(
        self,
        sandbox_id: str,
        expected: Collection[SandboxState],
        new: SandboxState,
        *,
        error: str | None = None,
        exit_cause: ExitCause | None = None,
    ) -> Sandbox:
        current = await self._in_state(sandbox_id, expected)
        changed = dataclasses.replace(current, state=new, error=error)
        if new is SandboxState.RUNNING:
            changed = dataclasses.replace(changed, stopped_at=None, exit_cause=None)
        elif new is SandboxState.STOPPED:
            changed = dataclasses.replace(changed, stopped_at=self._clock.now())
        if exit_cause is not None:
            changed = dataclasses.replace(changed, exit_cause=exit_cause)
        return self._put(changed)

    async def update(
        self,
        sandbox_id: str,
        changes: SandboxChanges,
        *,
        expected: Collection[SandboxState] = CHANGEABLE,
    ) -> Sandbox:
        current = await self._in_state(sandbox_id, expected)
        changed = dataclasses.replace(current, spec=changes.apply(current.spec))
        refusals.check_storable(changed.spec)
        self._check_name(changed)
        more = egress_of(changed.spec) - egress_of(current.spec)
        self._quotas.enter(current.owner, Amounts(egress_bytes_per_s=more))
        if changes.lifetime is not None:
            changed = dataclasses.replace(changed, expires_at=changes.lifetime.expires_at)
        return self._put(changed)

    async def set_origin(self, sandbox_id: str, origin: str | None, *, expected: str | None = None) -> Sandbox:
        current = await self.get(sandbox_id)
        if current.origin != expected:
            raise refusals.other_origin(sandbox_id, current.origin, expected)
        return self._put(dataclasses.replace(current, origin=origin))

    async def origins(self) -> Mapping[str, int]:
        return Counter(sandbox.origin for sandbox in self._tables.sandboxes.values() if sandbox.origin is not None)

    async def delete(self, sandbox_id: str, expected: Collection[SandboxState]) -> None:
        await self._in_state(sandbox_id, expected)
        for placed in [placed for placed in self._tables.placements if placed[0] == sandbox_id]:
            del self._tables.placements[placed]
        for alias in [each.alias for each in self._tables.publications.values() if each.sandbox_id == sandbox_id]:
            del self._tables.publications[alias]
        del self._tables.sandboxes[sandbox_id]

    def _check_name(self, sandbox: Sandbox) -> None:
        for other in self._tables.sandboxes.values():
            same_name = (other.owner, other.spec.name) == (sandbox.owner, sandbox.spec.name)
            if same_name and other is not self._tables.sandboxes.get(sandbox.id):
                raise SandboxExists(other)

    def _put(self, sandbox: Sandbox) -> Sandbox:
        self._tables.sandboxes[sandbox.id] = sandbox
        return sandbox

    def _of(self, owner: str | None) -> Sequence[Sandbox]:
        return [sandbox for sandbox in self._tables.sandboxes.values() if owner in (None, sandbox.owner)]

    async def _in_state(self, sandbox_id: str, expected: Collection[SandboxState]) -> Sandbox:
        current = await self.get(sandbox_id)
        if current.state not in expected:
            raise refusals.wrong_state("sandbox", sandbox_id, current.state, expected)
        return current
