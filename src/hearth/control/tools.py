"""What brings machines up in a data directory, put together: engine, network, volumes."""

from __future__ import annotations

import structlog

from hearth.config import DataDirectory, Settings
from hearth.control.images import Images
from hearth.control.net_mode import confinement_of
from hearth.control.secrets import Secrets
from hearth.engine.base import Engine
from hearth.engine.local.engine import LocalEngine
from hearth.engine.qemu.engine import QemuEngine
from hearth.errors import InvalidInput
from hearth.host.cgroups import detect
from hearth.host.clock import Clock
from hearth.host.directory import load_secret, load_tag
from hearth.jobs.bringup import Workshop
from hearth.jobs.volumes import MachineVolumes
from hearth.network.machine import MachineNetwork
from hearth.store.base import Store
from hearth.store.memory import MemoryStore
from hearth.volume.file import FileVolumes
from hearth.volume.linked import LinkedVolumes
from hearth.volume.locks import Attachments

log = structlog.get_logger(__name__)


def make_workshop(
    data: DataDirectory,
    settings: Settings,
    clock: Clock,
    store: Store | None = None,
    network: MachineNetwork | None = None,
    secrets: Secrets | None = None,
    images: Images | None = None,
) -> Workshop:
    """Give what brings machines up in a prepared data directory.

    Args:
        store: without one no volume is remembered.
        network: without one machines are connected to nothing.
        secrets: without them machines are given none.
        images: without them machines are given no variables of their images.

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
        image_env=None if images is None else images.env_of,
    )


def make_volumes(data: DataDirectory, store: Store, engine: Engine, clock: Clock) -> MachineVolumes:
    """Give the volumes of a data directory: files in it, and links to provisioned ones."""
    below = FileVolumes(data.volumes, clock=clock)
    below.prepare()
    backend = LinkedVolumes(below, data.volumes / "links")
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
            cgroups=detect(tag, settings.machines_cgroup),
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
