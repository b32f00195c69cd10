"""Named checkpoints: memory and disk of a sandbox at one moment, kept for any number of sandboxes to start from.

The row comes first and says CREATING, the files follow, READY is the last word. A deleted one is DELETING until nothing
lies over its disk any more; the shelf removes it then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from hearth.control.creation import NO_EXTRAS, Creation, Extras
from hearth.control.forks import Forks, Model, inherit, specs_of_copies
from hearth.control.reach import within_reach
from hearth.control.shelf import CHECKPOINT_PREFIX, Shelf
from hearth.control.space import require_space
from hearth.engine.manifest import refused
from hearth.engine.snapshot import FILE_MODE
from hearth.errors import Conflict, NotFound
from hearth.host.files import write_atomic
from hearth.host.identity import new_id
from hearth.host.waiting import until_done
from hearth.jobs.bringup import Workshop, sleeping
from hearth.model import Sandbox, SandboxSpec, Snapshot, SnapshotState, User, check_name
from hearth.store.base import FIRST_PAGE, Page, PageRequest, Store
from hearth.tenancy import SecretUse

log = structlog.get_logger(__name__)

ENVIRONMENT = "environment.json"
NET_POLICY = "net_policy.json"
SECRETS = "secrets.json"
"""Beside a checkpoint's own files: the variables that commands in the copies get, as they did in the sandbox."""
MAX_ANCESTORS = 1000


class Checkpoints:
    """Use cases of checkpoints."""

    def __init__(self, *, store: Store, workshop: Workshop, creation: Creation, forks: Forks, shelf: Shelf) -> None:
        self._store = store
        self._workshop = workshop
        self._creation = creation
        self._forks = forks
        self._shelf = shelf

    async def create(self, user: User, reference: str, name: str) -> Snapshot:
        """Keep a sandbox as it is now under a name; it runs on.

        Raises:
            InvalidInput: ``name`` is none.
            NotFound: no such sandbox.
            Conflict: the name is taken, the sandbox cannot be woken, or the engine's machines do not sleep.
            NoSpace, EngineFailed, GuestFailed, TimedOut, SnapshotRefused: nothing is left of the attempt.
        """
        check_name(name)
        found = await within_reach(self._store.sandboxes, user, reference)
        sleeping(self._workshop.engine)
        sandbox = await self._creation.settle(found)
        await require_space(self._workshop, self._shelf)
        snapshot = Snapshot(
            id=new_id(CHECKPOINT_PREFIX.rstrip("-")),
            owner=user.id,
            name=name,
            sandbox_id=sandbox.id,
            sandbox_name=sandbox.spec.name,
            parent=await self._ancestor(sandbox),
            created_at=self._workshop.clock.now(),
            image=sandbox.spec.image,
            cpus=sandbox.spec.cpus,
            memory_mib=sandbox.spec.memory_mib,
            disk_mib=sandbox.spec.disk_mib,
        )
        with self._shelf.pin(snapshot.id):
            await self._store.snapshots.create(snapshot)
            try:
                return await self._make(sandbox, snapshot)
            except BaseException:
                undoing = asyncio.create_task(self._undo(snapshot), name=f"undo checkpoint {snapshot.id}")
                await until_done(undoing)
                undoing.result()
                raise

    async def list(self, user: User, page: PageRequest = FIRST_PAGE) -> Page[Snapshot]:
        """Give a page of the user's checkpoints (everybody's for an administrator), oldest first.

        Those being deleted are among them as long as others need them: the tree has no gaps.
        """
        return await self._store.snapshots.list(_scope(user), page=page)

    async def get(self, user: User, reference: str) -> Snapshot:
        """Find a checkpoint by id or name.

        Raises:
            NotFound: the user has none such.
            Conflict: a name fits those of several users.
        """
        return await within_reach(self._store.snapshots, user, reference)

    async def delete(self, user: User, reference: str) -> None:
        """Delete a checkpoint; what other checkpoints and sandboxes need of it stays until they are gone.

        Its name is free at once.

        Raises:
            NotFound: the user has none such.
            Conflict: it is being made.
        """
        snapshot = await self.get(user, reference)
        if snapshot.state is not SnapshotState.DELETING:
            states = (SnapshotState.READY,)
            await self._store.snapshots.transition(snapshot.id, states, SnapshotState.DELETING)
            log.info("checkpoint deleted", snapshot=snapshot.id, name=snapshot.name)
        await self._shelf.sweep()

    async def resume(
        self, user: User, reference: str, *, sandbox_name: str | None = None, count: int = 1
    ) -> Sequence[Sandbox]:
        """Bring up sandboxes that go on where a checkpoint was taken.

        They are named ``sandbox_name``, or after the checkpoint; several get -1, -2 and so on.

        Raises:
            InvalidInput: ``count`` or a name is not acceptable.
            NotFound: the user has no such checkpoint.
            Conflict: it is not ready, or a name is taken.
            SnapshotRefused: it is damaged, or does not fit this host any more.
            CopiesFailed, NoSpace, EngineFailed, GuestFailed, TimedOut: as ``Forks.copies``.
        """
        snapshot = await self.get(user, reference)
        async with self._shelf.hold(snapshot.id):
            model = await self._model(user, await self._store.snapshots.get(snapshot.id))
            specs = specs_of_copies(model.spec, base=snapshot.name, name=sandbox_name, count=count)
            return await self._copies(user, model, specs)

    async def resume_as(self, user: User, reference: str, spec: SandboxSpec, extras: Extras = NO_EXTRAS) -> Sandbox:
        """Bring up one sandbox as ``spec`` says that goes on where a checkpoint was taken.

        Raises:
            Conflict: its image or shape is another, or as ``resume``.
            NotFound: there is no such source; ``field`` is from.
            SnapshotRefused, NoSpace, EngineFailed, GuestFailed, TimedOut: as ``resume``.
        """
        try:
            snapshot = await self.get(user, reference)
        except NotFound as error:
            raise NotFound(
                "no such source",
                details=f"{reference[:80]!r} is neither a sandbox nor a checkpoint",
                resolution="see 'hearth list' and 'hearth snapshots'",
                field="from",
            ) from error
        sleeping(self._workshop.engine)
        async with self._shelf.hold(snapshot.id):
            model = await self._model(user, await self._store.snapshots.get(snapshot.id))
            (made,) = await self._copies(user, model, [inherit(spec, model.spec)], extras)
        return made

    async def _copies(
        self, user: User, model: Model, specs: Sequence[SandboxSpec], extras: Extras = NO_EXTRAS
    ) -> Sequence[Sandbox]:
        await self._forks.require_free(user, specs)
        await require_space(self._workshop, self._shelf)
        return await self._forks.copies(user, model, specs, extras)

    async def _model(self, user: User, snapshot: Snapshot) -> Model:
        """Give what copies are made of; the caller holds the checkpoint.

        Raises:
            Conflict: it is not ready.
            SnapshotRefused: it is damaged.
        """
        if snapshot.state is not SnapshotState.READY:
            raise Conflict(
                "the checkpoint is not ready",
                details=f"{snapshot.name} is {snapshot.state}",
                resolution="choose another one" if snapshot.state is SnapshotState.DELETING else "wait a moment",
            )
        directory = self._workshop.data.snapshot(snapshot.id)
        spec = SandboxSpec(
            name=snapshot.sandbox_name,
            image=snapshot.image,
            cpus=snapshot.cpus,
            memory_mib=snapshot.memory_mib,
            disk_mib=snapshot.disk_mib,
            env=await asyncio.to_thread(_read_environment, directory),
            net_policy=await asyncio.to_thread(_read_policy, directory),
            secrets=await asyncio.to_thread(_read_secrets, directory) if snapshot.owner == user.id else (),
        )
        return Model(snapshot=snapshot.id, known_as=snapshot.sandbox_id, parent=snapshot.id, spec=spec)

    async def _make(self, sandbox: Sandbox, snapshot: Snapshot) -> Snapshot:
        directory = self._workshop.data.snapshot(snapshot.id)
        taken = await self._forks.capture(sandbox, directory)
        await asyncio.to_thread(_write_environment, directory, sandbox.spec.env)
        await asyncio.to_thread(_write_policy, directory, sandbox.spec.net_policy)
        uses = msgspec.json.encode(sandbox.spec.secrets if sandbox.owner == snapshot.owner else ())
        await asyncio.to_thread(write_atomic, directory / SECRETS, uses, mode=FILE_MODE)
        ready = await self._store.snapshots.transition(
            snapshot.id, (SnapshotState.CREATING,), SnapshotState.READY, size_bytes=taken.snapshot.size_bytes
        )
        log.info("checkpoint made", snapshot=ready.id, name=ready.name, sandbox=sandbox.id)
        return ready

    async def _undo(self, snapshot: Snapshot) -> None:
        await self._shelf.remove(snapshot.id)
        await self._store.snapshots.delete(snapshot.id, (SnapshotState.CREATING, SnapshotState.READY))

    async def _ancestor(self, sandbox: Sandbox) -> str | None:
        """Tell which checkpoint a sandbox has started from, itself or what it was forked from."""
        parent = sandbox.parent
        for _ in range(MAX_ANCESTORS):
            if parent is None:
                return None
            if parent.startswith(CHECKPOINT_PREFIX):
                break
            try:
                parent = (await self._store.sandboxes.get(parent)).parent
            except NotFound:
                return None
        try:
            return (await self._store.snapshots.get(parent)).id if parent is not None else None
        except NotFound:
            return None


def _scope(user: User) -> str | None:
    return None if user.admin else user.id


def _write_environment(directory: Path, env: Mapping[str, str]) -> None:
    write_atomic(directory / ENVIRONMENT, msgspec.json.encode(dict(env)), mode=FILE_MODE)


def _read_environment(directory: Path) -> Mapping[str, str]:
    try:
        return msgspec.json.decode((directory / ENVIRONMENT).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError) as error:
        raise refused(directory.name, f"{ENVIRONMENT} cannot be read: {error}") from error


def _write_policy(directory: Path, policy: Mapping[str, object] | None) -> None:
    write_atomic(directory / NET_POLICY, msgspec.json.encode(dict(policy or {})), mode=FILE_MODE)


def _read_policy(directory: Path) -> Mapping[str, object]:
    """Give what the sandbox might reach then; of a checkpoint that does not say, nothing of the world."""
    try:
        return msgspec.json.decode((directory / NET_POLICY).read_bytes(), type=dict[str, object])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise refused(directory.name, f"{NET_POLICY} cannot be read: {error}") from error


def _read_secrets(directory: Path) -> tuple[SecretUse, ...]:
    """Give the names of the secrets the sandbox had then, never their values; one of an earlier version had none."""
    try:
        return msgspec.json.decode((directory / SECRETS).read_bytes(), type=tuple[SecretUse, ...])
    except FileNotFoundError:
        return ()
    except (OSError, msgspec.DecodeError) as error:
        raise refused(directory.name, f"{SECRETS} cannot be read: {error}") from error
