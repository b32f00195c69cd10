"""What sandboxes may reach: their policies from a user's words to the kernel, and what they tried.

A policy is stored before it is put into force, and what is stored is what holds: an edit the kernel refuses is taken
back, and a sandbox that can be brought under neither is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

import structlog

from hearth.control.egress import EgressLog, Tried
from hearth.control.residents import Residents
from hearth.errors import Conflict, HearthError, InvalidInput, NotFound
from hearth.host.waiting import until_done
from hearth.jobs.bringup import Workshop
from hearth.jobs.networks import policy_of, refused
from hearth.model import Lifetime, Sandbox, SandboxChanges, SandboxSpec
from hearth.network.events import minimal_policy
from hearth.network.policy import Policy, parse_policy
from hearth.store.base import Store

log = structlog.get_logger(__name__)

Fields = Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class Egress:
    """What a sandbox tried under which policy; ``minimal`` is the shortest one for what an audit saw."""

    policy: Policy
    tried: Tried
    minimal: Policy


class Networking:
    """Use cases of sandboxes' networks; where there are none, nobody may ask for a policy."""

    def __init__(self, *, store: Store, workshop: Workshop, residents: Residents, egress: EgressLog) -> None:
        self._store = store
        self._network = workshop.network
        self._residents = residents
        self._egress = egress
        self._default = parse_policy({"base": workshop.settings.net_default})

    def with_policy(self, spec: SandboxSpec) -> SandboxSpec:
        """Give the spec of a new sandbox with a whole policy: what it does not say is as the daemon was told.

        Raises:
            InvalidInput: a field is not acceptable, or asks for what networks here have not.
        """
        if not self._network.connects:
            return replace(spec, net_policy=self._without_networks(spec.net_policy))
        return replace(spec, net_policy=_completed(self._default, spec.net_policy or {}).describe())

    def check(self, spec: SandboxSpec) -> None:
        """Refuse a policy that cannot be had, for what gets the rest of it elsewhere. Raises as ``with_policy``."""
        if spec.net_policy is not None:
            self.with_policy(spec)

    def address(self, sandbox: Sandbox) -> IPv4Address | None:
        """Tell a sandbox's address among its owner's; None while it is cold."""
        return self._network.address(sandbox.id)

    def egress(self, sandbox: Sandbox) -> Egress:
        """Tell what a sandbox tried since this daemon started, and the shortest policy for what an audit saw."""
        policy, tried = policy_of(sandbox), self._egress.tried(sandbox.id)
        events = [attempt.event for attempt in tried.attempts]
        return Egress(policy=policy, tried=tried, minimal=minimal_policy(events, policy))

    def forget(self, sandbox_id: str) -> None:
        """Drop what is known of a destroyed sandbox."""
        self._egress.forget(sandbox_id)

    async def update(self, sandbox: Sandbox, changes: SandboxChanges) -> Sandbox:
        """Change a sandbox's row, and with it what neighbours call it and what it may reach; at once where it is up.

        Fields of ``net_policy`` that are left out stay. A caller who leaves does not stop it half-way.

        Raises:
            InvalidInput: a field is not acceptable, or asks for what networks here have not.
            HostUnfit: the kernel refused; everything is as it was.
            SandboxExists: the user has another of the new name.
        """
        if not self._network.connects and changes.net_policy is not None:
            changes = replace(changes, net_policy=self._without_networks(changes.net_policy))
        if changes.net_policy is None and changes.name is None:
            return await self._store.sandboxes.update(sandbox.id, changes)
        async with self._residents[sandbox.id].lock:  # it neither wakes nor sleeps meanwhile
            updating = asyncio.create_task(self._update(sandbox.id, changes), name=f"update {sandbox.id}")
            await until_done(updating)
            return updating.result()

    async def _update(self, sandbox_id: str, changes: SandboxChanges) -> Sandbox:
        current = await self._store.sandboxes.get(sandbox_id)
        if changes.net_policy is not None and self._network.connects:
            policy = _completed(policy_of(current), changes.net_policy)
            changes = replace(changes, net_policy=policy.describe())
        updated = await self._store.sandboxes.update(sandbox_id, changes)
        if not self._network.connects:
            return updated
        if changes.net_policy is not None:
            await self._enforce(current, updated)
        if changes.name is not None:
            self._network.rename(sandbox_id, changes.name)
        return updated

    async def _enforce(self, before: Sandbox, after: Sandbox) -> None:
        try:
            await self._network.apply(after.id, policy_of(after))
        except NotFound:
            return  # it is cold: the row counts when it wakes
        except (HearthError, OSError) as error:
            log.error("a policy was refused", sandbox=after.id, error=str(error))
            await self._store.sandboxes.update(after.id, _way_back(before, after))
            await self._network.restore(after.id, policy_of(before))
            if isinstance(error, HearthError):
                raise
            raise refused(error) from error

    def _without_networks(self, said: Fields | None) -> Fields | None:
        """Give the policy that holds where nothing is connected; what else is asked for cannot be had."""
        widest = self._network.widest
        if widest is not None and (policy := _completed(widest, said or {})).is_within(widest):
            return policy.describe()
        if said is None:
            return None
        raise InvalidInput(
            "such a network policy cannot be had here",
            details=self._network.why_closed,
            resolution="leave net_policy out, or ask the operator for a daemon of the engine qemu that runs as root",
            field="net_policy",
        )


def inherited(wanted: Fields | None, source: Fields | None) -> Fields | None:
    """Give the policy of a copy: its source's, or a narrower one.

    Raises:
        InvalidInput: a field is not acceptable.
        Conflict: it would be more open than its source.
    """
    if wanted is None:
        return source
    model = parse_policy(source or {})
    policy = _completed(model, wanted)
    if not policy.is_within(model):
        raise Conflict(
            "a copy reaches no more than its source",
            details="its policy would be more open than that of what it starts from",
            resolution="create it with its source's policy and edit it then, or edit the source first",
            field="net_policy",
        )
    return policy.describe()


def _way_back(before: Sandbox, after: Sandbox) -> SandboxChanges:
    return SandboxChanges(
        name=before.spec.name,
        keep_hot=before.spec.keep_hot,
        labels_add=before.spec.labels,
        labels_remove=tuple(after.spec.labels),
        lifetime=Lifetime(ttl_s=before.spec.ttl_s, expires_at=before.expires_at),
        net_policy=policy_of(before).describe(),
    )


def _completed(policy: Policy, said: Fields) -> Policy:
    return parse_policy({**policy.describe(), **said})
