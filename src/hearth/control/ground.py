"""What every use case of a daemon stands on: its directory, taken; its store, opened; users, images, machines."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import AsyncIterator
from dataclasses import dataclass

from hearth.config import DataDirectory, Settings
from hearth.control.audit import Audit
from hearth.control.egress import EgressLog
from hearth.control.events import Events
from hearth.control.fabric import make_network, opened
from hearth.control.images import Images
from hearth.control.limits import host_limits
from hearth.control.reporting import Reporter
from hearth.control.sandboxes import Sandboxes
from hearth.control.secrets import Secrets
from hearth.control.standing import Standing
from hearth.control.tools import make_workshop
from hearth.control.users import Users
from hearth.control.vault import Vault
from hearth.host.clock import Clock, SystemClock
from hearth.host.directory import load_host_id, load_tag, own_directory, prepare_directory, require_whole
from hearth.host.identity import new_id
from hearth.image.store import ImageStore
from hearth.jobs.bringup import Workshop
from hearth.jobs.runner import Runner
from hearth.store.base import Store
from hearth.store.host_store import Host
from hearth.store.sql import open_store
from hearth.store.sqlite import sqlite_url


@dataclass(frozen=True, kw_only=True)
class Ground:
    """One daemon's own. ``run`` names this run of it; ``reporter`` hears of every change in ``store``."""

    data: DataDirectory
    settings: Settings
    clock: Clock
    run: str
    host: Host
    events: Events
    reporter: Reporter
    store: Store
    standing: Standing
    vault: Vault
    secrets: Secrets
    images: Images
    users: Users
    audit: Audit
    workshop: Workshop
    runner: Runner
    sandboxes: Sandboxes


@contextlib.asynccontextmanager
async def ground(data: DataDirectory, settings: Settings) -> AsyncIterator[Ground]:
    """Take the data directory and open what is in it; at the end let go of it again. Raises as ``open_daemon``."""
    data.check()
    data = prepare_directory(data)
    clock = SystemClock()
    with own_directory(data):
        require_whole(data)
        run = new_id("daemon")
        events = Events(clock, run=run)
        reporter = Reporter(events)
        url = settings.database_url or sqlite_url(data.database)
        host = Host(id=load_host_id(data), name=platform.node(), tag=load_tag(data), run=run)
        store = reporter.watch(await open_store(url, clock=clock, quotas=settings.quotas, host=host.id))
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(store.close)
            standing = Standing(store.hosts, host, clock, is_shared=not url.startswith("sqlite"))
            await stack.enter_async_context(standing.held())
            egress = EgressLog(clock)
            network = make_network(load_tag(data), settings, egress.tell, data.machines)
            vault = Vault(settings.master_key or data.master_key, store.secrets)
            await vault.check()
            secrets, images = Secrets(store.secrets, vault, clock), Images(ImageStore(data))
            workshop = make_workshop(data, settings, clock, store, network, secrets, images)
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
            yield Ground(
                data=data,
                settings=settings,
                clock=clock,
                run=run,
                host=host,
                events=events,
                reporter=reporter,
                store=store,
                standing=standing,
                vault=vault,
                secrets=secrets,
                images=images,
                users=users,
                audit=audit,
                workshop=workshop,
                runner=runner,
                sandboxes=sandboxes,
            )
