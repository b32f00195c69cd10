"""The daemon as a value: one data directory, opened, reconciled, served by somebody, and closed again."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import datetime

import structlog

from hearth.config import DataDirectory, Settings
from hearth.control.attaching import Attaching
from hearth.control.audit import Audit
from hearth.control.background import Background
from hearth.control.checkpoints import Checkpoints
from hearth.control.egress import EgressLog
from hearth.control.events import Events
from hearth.control.execs import Execs
from hearth.control.fabric import make_network, opened
from hearth.control.heat import HeatLoop, host_reader
from hearth.control.idempotency import Idempotency
from hearth.control.images import Images
from hearth.control.jobs import Jobs
from hearth.control.limits import host_limits
from hearth.control.logs import keep_logs_short
from hearth.control.machine_templates import MachineTemplates
from hearth.control.net_mode import confinement_of
from hearth.control.overview import Overview
from hearth.control.publishing import Publishing
from hearth.control.quotas import Allowances
from hearth.control.readiness import Readiness
from hearth.control.reconcile import Reconciler
from hearth.control.reporting import Reporter
from hearth.control.sandboxes import Sandboxes
from hearth.control.secrets import Secrets
from hearth.control.signatures import Signatures
from hearth.control.thermal import policy_of
from hearth.control.users import Users
from hearth.control.vault import Vault
from hearth.control.volumes import Volumes
from hearth.engine.base import Engine
from hearth.engine.local.engine import LocalEngine
from hearth.engine.qemu.engine import QemuEngine
from hearth.errors import InvalidInput
from hearth.host.cgroups import detect
from hearth.host.clock import Clock, SystemClock
from hearth.host.directory import load_secret, load_tag, own_directory, prepare_directory
from hearth.host.identity import new_id
from hearth.image.store import ImageStore
from hearth.jobs.bringup import Workshop
from hearth.jobs.runner import Runner
from hearth.jobs.volumes import MachineVolumes
from hearth.network.machine import MachineNetwork
from hearth.store.base import Store
from hearth.store.memory import MemoryStore
from hearth.store.sql import open_store
from hearth.store.sqlite import sqlite_url
from hearth.volume.file import FileVolumes
from hearth.volume.locks import Attachments

log = structlog.get_logger(__name__)


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
    checkpoints: Checkpoints
    volumes: Volumes
    attaching: Attaching
    templates: MachineTemplates
    publishing: Publishing
    idempotency: Idempotency
    events: Events
    jobs: Jobs
    readiness: Readiness
    execs: Execs
    heat: HeatLoop
    overview: Overview
    started_at: datetime


@contextlib.asynccontextmanager
async def open_daemon(data: DataDirectory, settings: Settings) -> AsyncIterator[Daemon]:
    """Take the data directory, bring it in order, give the use cases; at the end let go of machines and store.

    Raises:
        Conflict: another daemon has the directory.
        HostUnfit: the directory cannot be written, or the kernel makes no networks.
        NoSpace: its file system is full.
        InvalidInput: a setting is not acceptable.
    """
    data.check()
    data = prepare_directory(data)
    clock = SystemClock()
    with own_directory(data):
        run = new_id("daemon")
        events = Events(clock, run=run)
        reporter = Reporter(events)
        store = reporter.watch(await open_store(sqlite_url(data.database), clock=clock, quotas=settings.quotas))
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(store.close)
            egress = EgressLog(clock)
            network = make_network(load_tag(data), settings, egress.tell, data.machines)
            vault = Vault(settings.master_key or data.master_key, store.secrets)
            await vault.check()
            secrets = Secrets(store.secrets, vault, clock)
            workshop = make_workshop(data, settings, clock, store, network, secrets)
            images = Images(ImageStore(data))
            users = Users(store, clock, vault)
            audit = Audit(store.audit, users, clock, kept_days=settings.audit_days)
            stack.push_async_callback(audit.close)
            runner = Runner(store.jobs, clock=clock, owner=run, observer=reporter.step)
            await stack.enter_async_context(opened(network))
            sandboxes = Sandboxes(
                store=store, images=images, workshop=workshop, runner=runner, limits=host_limits(), egress=egress
            )
            sandboxes.sleep.residents.on_heat = reporter.heat
            await users.ensure_admin(data.admin_key)
            found = await Reconciler(store, workshop, runner, sandboxes).run()
            log.info("reconciled", **asdict(found))
            heat = HeatLoop(
                sandboxes.thermostat(), host=host_reader(data.root), clock=clock, policy=policy_of(settings)
            )
            attaching = Attaching(
                store=store,
                workshop=workshop,
                fleet=sandboxes.fleet,
                creation=sandboxes.creation,
                sleep=sandboxes.sleep,
                placing=sandboxes.volumes.placing,
            )
            execs = Execs(store=store, sandboxes=sandboxes, root=data.execs, settings=settings, clock=clock)
            await execs.recover()
            readiness = Readiness(store, images, workshop)
            stack.push_async_callback(readiness.close)
            background = Background()
            try:
                background.start("execs", execs.work())
                background.start("heat", heat.run())
                background.start("audit", audit.run())
                background.start("logs", keep_logs_short(data.machines, clock))
                if sandboxes.can_sleep:
                    background.start("pool", sandboxes.pool.run())
                    background.start("preload", sandboxes.templates.preload())
                yield Daemon(
                    sandboxes=sandboxes,
                    users=users,
                    secrets=secrets,
                    audit=audit,
                    signatures=Signatures(store.users, users, vault, clock),
                    quotas=Allowances(store=store, users=users, images=images),
                    images=images,
                    checkpoints=sandboxes.checkpoints,
                    volumes=sandboxes.volumes,
                    attaching=attaching,
                    templates=sandboxes.machine_templates,
                    publishing=Publishing(store=store, sandboxes=sandboxes, clock=clock),
                    idempotency=Idempotency(store.answers, clock=clock, secret=workshop.secret, run=run),
                    events=events,
                    jobs=Jobs(store.jobs, sandboxes, reporter),
                    readiness=readiness,
                    execs=execs,
                    heat=heat,
                    overview=Overview(sandboxes),
                    started_at=clock.now(),
                )
            finally:
                await background.end()
                await execs.close()
                await sandboxes.close()


def make_workshop(
    data: DataDirectory,
    settings: Settings,
    clock: Clock,
    store: Store | None = None,
    network: MachineNetwork | None = None,
    secrets: Secrets | None = None,
) -> Workshop:
    """Give what brings machines up in a prepared data directory.

    Args:
        store: without one no volume is remembered.
        network: without one machines are connected to nothing.
        secrets: without them machines are given none.

    Raises:
        InvalidInput: there is no such engine.
    """
    tag = load_tag(data)
    network = network or MachineNetwork(tag)
    engine = make_engine(data, settings, tag, network)
    return Workshop(
        data=data,
        settings=settings,
        engine=engine,
        network=network,
        volumes=make_volumes(data, store or MemoryStore(clock=clock), engine, clock),
        clock=clock,
        secret=load_secret(data.secret),
        secrets=secrets,
    )


def make_volumes(data: DataDirectory, store: Store, engine: Engine, clock: Clock) -> MachineVolumes:
    """Give the volumes of a data directory: files in it."""
    backend = FileVolumes(data.volumes, clock=clock)
    backend.prepare()
    attachments = Attachments(data.volumes / "attachments", backend, clock=clock)
    attachments.prepare()
    places = engine.capabilities.volume_places
    return MachineVolumes(store=store.volumes, backend=backend, attachments=attachments, places=places)


def make_engine(data: DataDirectory, settings: Settings, tag: str, network: MachineNetwork) -> Engine:
    """Give the engine that was asked for; never one that isolates less than that.

    Raises:
        InvalidInput: there is no such engine.
    """
    if settings.engine == QemuEngine.name:
        return QemuEngine(
            verdicts=data.verdicts,
            dialer_for=network.dialer,
            cgroups=detect(tag),
            max_layers=settings.max_disk_layers,
            confinement=confinement_of(network),
        )
    if settings.engine == LocalEngine.name:
        log.warning("the local engine isolates nothing: commands run on this host")
        return LocalEngine()
    raise InvalidInput(
        "unknown engine",
        details=f"engine {settings.engine!r}",
        resolution=f"use {QemuEngine.name} or {LocalEngine.name}",
        field="engine",
    )
