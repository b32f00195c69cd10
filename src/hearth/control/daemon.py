"""The daemon as a value: one data directory, opened, reconciled, served by somebody, and closed again."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import structlog

from hearth.config import DataDirectory, Settings
from hearth.control.attaching import Attaching
from hearth.control.audit import Audit
from hearth.control.background import Background
from hearth.control.board import Board
from hearth.control.checkpoints import Checkpoints
from hearth.control.events import Events
from hearth.control.execs import Execs
from hearth.control.golden_images import GoldenImages
from hearth.control.ground import Ground, ground
from hearth.control.heat import HeatLoop, host_reader
from hearth.control.idempotency import Idempotency
from hearth.control.image_jobs import ImageJobs
from hearth.control.image_upkeep import ImageUpkeep
from hearth.control.images import Images
from hearth.control.jobs import Jobs
from hearth.control.lines import Lines
from hearth.control.logs import keep_logs_short
from hearth.control.machine_templates import MachineTemplates
from hearth.control.overview import Overview
from hearth.control.provisioning.links import Links
from hearth.control.provisioning.making import lease_terms, make_provisioner, webhook_settings
from hearth.control.provisioning.provisioner import Provisioner
from hearth.control.publishing import Publishing
from hearth.control.quotas import Allowances
from hearth.control.readiness import Readiness
from hearth.control.reconcile import Reconciler
from hearth.control.sandboxes import Sandboxes
from hearth.control.secrets import Secrets
from hearth.control.signatures import Signatures
from hearth.control.thermal import policy_of
from hearth.control.user_templates import UserTemplates
from hearth.control.users import Users
from hearth.control.volumes import Volumes
from hearth.control.webhooks import Webhooks
from hearth.jobs.runner import Runner
from hearth.store.base import Store
from hearth.store.redis_address import open_redis, read_address
from hearth.store.redis_notes import RedisNotes

log = structlog.get_logger(__name__)

NOTES_ANSWER_S = 1.0
"""So long one question to Redis may take."""


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """The use cases, ready to be called."""

    sandboxes: Sandboxes
    users: Users
    quotas: Allowances
    secrets: Secrets
    audit: Audit
    signatures: Signatures
    images: Images
    image_jobs: ImageJobs
    golden_images: GoldenImages
    image_upkeep: ImageUpkeep
    checkpoints: Checkpoints
    volumes: Volumes
    attaching: Attaching
    links: Links
    templates: MachineTemplates
    user_templates: UserTemplates
    publishing: Publishing
    idempotency: Idempotency
    events: Events
    jobs: Jobs
    readiness: Readiness
    execs: Execs
    heat: HeatLoop
    overview: Overview
    started_at: datetime
    provisioner: Provisioner
    webhooks: Webhooks
    board: Board
    notes: RedisNotes | None
    lines: Lines = field(default_factory=Lines)
    """Clients' lines to sessions."""


@contextlib.asynccontextmanager
async def open_daemon(data: DataDirectory, settings: Settings) -> AsyncIterator[Daemon]:
    """Take the data directory, bring it in order, give the use cases; at the end let go of machines and store.

    Raises:
        Conflict: another daemon has the directory.
        HostUnfit: the directory cannot be written, or the kernel makes no networks.
        NoSpace: its file system is full.
        InvalidInput: a setting is not acceptable.
    """
    async with ground(data, settings) as base, contextlib.AsyncExitStack() as stack:
        daemon = await _use_cases(base, stack)
        background = Background()
        try:
            for name, work in _work_of(daemon, base).items():
                background.start(name, work)
            yield daemon
        finally:
            await background.end()
            await daemon.execs.close()
            await daemon.sandboxes.close()


async def _use_cases(base: Ground, stack: contextlib.AsyncExitStack) -> Daemon:
    """Make the use cases, in the order in which they bring in order what an earlier daemon left."""
    store, sandboxes, images, clock = base.store, base.sandboxes, base.images, base.clock
    image_jobs = ImageJobs(
        jobs=store.jobs,
        images=images,
        claims=sandboxes.image_claims,
        runner=base.runner,
        reporter=base.reporter,
        settings=base.settings,
    )
    stack.push_async_callback(image_jobs.close)
    image_upkeep = ImageUpkeep(store=store, images=images, shelf=sandboxes.shelf, pool=sandboxes.pool)
    await image_upkeep.start()
    found = await Reconciler(store, base.workshop, base.runner, sandboxes).run()
    log.info("reconciled", **asdict(found))
    execs = Execs(
        store=store, sandboxes=sandboxes, root=base.data.execs, settings=base.settings, clock=clock, images=images
    )
    await execs.recover()
    links = _links(base)
    notes = _notes(base, stack)
    provisioner = await make_provisioner(
        data=base.data,
        settings=base.settings.provisioning,
        jobs=store.jobs,
        runner=Runner(
            store.jobs,
            clock=clock,
            owner=base.run,
            terms=lease_terms(base.settings.provisioning),
            observer=base.reporter.step,
            is_patient=True,
        ),
        reporter=base.reporter,
        clock=clock,
        host=base.host.name,
        links=links,
        notes=notes,
        kin=functools.partial(_hosts, store),
    )
    board = Board(notes, base.reporter, provisioner.working)
    readiness = Readiness(store, images, base.workshop)
    stack.push_async_callback(readiness.close)
    return Daemon(
        sandboxes=sandboxes,
        users=base.users,
        secrets=base.secrets,
        audit=base.audit,
        signatures=Signatures(store.users, base.users, base.vault, clock),
        quotas=Allowances(store=store, users=base.users, images=images),
        images=images,
        image_jobs=image_jobs,
        golden_images=GoldenImages(
            image_jobs=image_jobs, images=images, settings=provisioner.settings, cache=provisioner.cache
        ),
        image_upkeep=image_upkeep,
        checkpoints=sandboxes.checkpoints,
        volumes=sandboxes.volumes,
        attaching=_attaching(base),
        links=links,
        templates=sandboxes.machine_templates,
        user_templates=UserTemplates(
            store=store.templates, sandboxes=sandboxes, images=images, secrets=base.secrets, clock=clock
        ),
        publishing=Publishing(store=store, sandboxes=sandboxes, clock=clock),
        idempotency=Idempotency(
            store.answers,
            clock=clock,
            secret=base.workshop.secret,
            vault=base.vault,
            run=f"{base.host.id}/{base.run}",
        ),
        events=base.events,
        jobs=Jobs(store.jobs, sandboxes, base.reporter, image_jobs, provisioner, board=board),
        board=board,
        notes=notes,
        provisioner=provisioner,
        webhooks=Webhooks(
            store.webhooks,
            webhook_settings(base.settings.provisioning),
            clock=clock,
            host=base.host.id,
            run=base.run,
        ),
        readiness=readiness,
        execs=execs,
        heat=HeatLoop(
            sandboxes.thermostat(), host=host_reader(base.data.root), clock=clock, policy=policy_of(base.settings)
        ),
        overview=Overview(sandboxes),
        started_at=clock.now(),
    )


async def _hosts(store: Store) -> Collection[str]:
    """Give the data directories of all daemons on our database."""
    return {host.id for host in await store.hosts.list()}


def _links(base: Ground) -> Links:
    machines = base.workshop.volumes
    return Links(
        store=base.store,
        users=base.users,
        volumes=base.sandboxes.volumes,
        machines=machines,
        links=machines.backend,
        clock=base.clock,
    )


def _notes(base: Ground, stack: contextlib.AsyncExitStack) -> RedisNotes | None:
    if not (url := base.settings.provisioning.redis_url):
        return None
    redis = open_redis(read_address(url), timeout_s=NOTES_ANSWER_S)
    stack.push_async_callback(redis.close)
    return RedisNotes(redis)


def _attaching(base: Ground) -> Attaching:
    sandboxes = base.sandboxes
    return Attaching(
        store=base.store,
        workshop=base.workshop,
        fleet=sandboxes.fleet,
        creation=sandboxes.creation,
        sleep=sandboxes.sleep,
        placing=sandboxes.volumes.placing,
    )


def _work_of(daemon: Daemon, base: Ground) -> Mapping[str, Coroutine[Any, Any, None]]:
    """Give what goes on beside the calls, by name, for as long as the daemon lives."""
    work = {
        "execs": daemon.execs.work(),
        "heat": daemon.heat.run(),
        "audit": daemon.audit.run(),
        "host": base.standing.run(),
        "images": daemon.image_upkeep.run(),
        "provisioner": daemon.provisioner.run(),
        "webhooks": daemon.webhooks.run(),
        "logs": keep_logs_short(base.data.machines, base.clock),
    }
    if daemon.notes is not None:
        work |= {"redis": daemon.notes.watch(), "board": daemon.board.run()}
    if daemon.sandboxes.can_sleep:
        work |= {"pool": daemon.sandboxes.pool.run(), "preload": daemon.sandboxes.templates.preload()}
    return work
