"""What Prometheus is told: the instruments, and what is read of daemon, host and sandboxes at the moment of asking.

Series of single sandboxes are bounded in number: beyond the bound the hottest have them, and how many have not is told.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

from prometheus_client import ProcessCollector, Summary, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hearth.control.daemon import Daemon
from hearth.control.metering import Usage
from hearth.control.overview import MIB, Host
from hearth.control.thermal import Action
from hearth.host.threads import on_own_thread
from hearth.metrics.instruments import REGISTRY
from hearth.model import Heat, JobState, Sandbox, SandboxState
from hearth.store.base import MAX_PAGE, PageRequest
from hearth.version import VERSION

SANDBOXES_MAX = 500
"""Sandboxes with series of their own, ten each."""
TEMPLATES_FRESH_S = 30.0
UNFINISHED = (JobState.PENDING, JobState.RUNNING, JobState.UNDOING)
WARMEST_FIRST = (Heat.HOT, Heat.WARM, Heat.COLD)

SCRAPE_SECONDS = Summary("hearth_scrape_seconds", "Making of answers to /metrics.", registry=REGISTRY)
ProcessCollector(registry=REGISTRY)


class Exposition:
    """Makes the text of one daemon."""

    def __init__(self, daemon: Daemon, *, sandboxes_max: int = SANDBOXES_MAX) -> None:
        self._daemon = daemon
        self._sandboxes_max = sandboxes_max
        self._templates: tuple[float, int, int] | None = None

    async def text(self) -> bytes:
        """Give all metrics in Prometheus's text format."""
        started_s = time.perf_counter()
        daemon = self._daemon
        everybodys = await daemon.overview.every(None)
        shown = self._chosen(everybodys)
        usages = await daemon.overview.meter.read([sandbox.id for sandbox in shown])
        daemon.overview.meter.forget_all_but([sandbox.id for sandbox in everybodys])
        metrics = [
            *self._of_daemon(),
            *self._of_sandboxes(everybodys, left_out=len(everybodys) - len(usages)),
            *of_host(await daemon.overview.host()),
            *await self._of_jobs(),
            *await self._of_templates(),
            *await self._of_images(),
            *of_each(shown, usages),
        ]
        # Some ms for hundreds of sandboxes, which nobody else shall wait for.
        text = await on_own_thread("metrics", lambda: generate_latest(REGISTRY) + generate_latest(_Now(metrics)))
        SCRAPE_SECONDS.observe(time.perf_counter() - started_s)
        return text

    def _chosen(self, sandboxes: Sequence[Sandbox]) -> list[Sandbox]:
        heat = self._daemon.sandboxes.heat
        ordered = sorted(sandboxes, key=lambda sandbox: WARMEST_FIRST.index(heat(sandbox)))
        return ordered[: self._sandboxes_max]

    def _of_daemon(self) -> list[Metric]:
        sandboxes = self._daemon.sandboxes
        engine = sandboxes.workshop.engine.name
        about = GaugeMetricFamily("hearth_build_info", "What runs here.", labels=("version", "engine"))
        about.add_metric((VERSION, engine), 1)
        started = GaugeMetricFamily("hearth_start_time_seconds", "When the daemon was ready, since 1970.")
        started.add_metric((), self._daemon.started_at.timestamp())
        pool = gauge_of("hearth_pool_machines", "Machines made ahead.", "kind", sandboxes.pool.sizes())
        claims = CounterMetricFamily("hearth_pool_claims", "New sandboxes by what the pool had.", labels=("result",))
        for result in ("ready", "waiting", "miss"):
            claims.add_metric((result,), sandboxes.pool.hits[result])
        cut = CounterMetricFamily("hearth_meter_rounds_cut", "Readings of sandboxes that ran out of time.")
        cut.add_metric((), self._daemon.overview.meter.rounds_cut)
        counters = self._daemon.heat.counters
        acts = CounterMetricFamily("hearth_thermal_actions", "What cooled by itself.", labels=("action", "outcome"))
        for action in Action:
            acts.add_metric((action.value, "done"), counters.done[action])
            acts.add_metric((action.value, "failed"), counters.failed[action])
        return [about, started, pool, claims, cut, acts]

    def _of_sandboxes(self, sandboxes: Sequence[Sandbox], *, left_out: int) -> list[Metric]:
        states = Counter(sandbox.state for sandbox in sandboxes)
        heats = Counter(map(self._daemon.sandboxes.heat, sandboxes))
        without = GaugeMetricFamily("hearth_sandboxes_without_series", "Sandboxes that are too many, or not read yet.")
        without.add_metric((), left_out)
        by_state = {state.value: states[state] for state in SandboxState}
        by_heat = {heat.value: heats[heat] for heat in Heat}
        return [
            gauge_of("hearth_sandboxes", "Sandboxes by state.", "state", by_state),
            gauge_of("hearth_machines", "Sandboxes by how much of them is there.", "heat", by_heat),
            without,
        ]

    async def _of_jobs(self) -> list[Metric]:
        page = PageRequest(limit=MAX_PAGE)
        found = await self._daemon.sandboxes.store.jobs.list(states=UNFINISHED, page=page)
        states = Counter(job.state for job in found.items)
        by_state = {state.value: states[state] for state in UNFINISHED}
        return [gauge_of("hearth_jobs_unfinished", "Jobs that have not come to an end.", "state", by_state)]

    async def _of_images(self) -> list[Metric]:
        kept = await self._daemon.provisioner.cache.list()
        count = GaugeMetricFamily("hearth_image_cache_images", "Golden images that are kept.")
        count.add_metric((), len(kept))
        size = GaugeMetricFamily("hearth_image_cache_bytes", "What they take on disk.")
        size.add_metric((), sum(entry.facts.size_bytes for entry in kept))
        waiting = GaugeMetricFamily("hearth_webhooks_pending", "Calls about jobs that are not over.")
        waiting.add_metric((), await self._daemon.sandboxes.store.webhooks.pending())
        return [count, size, waiting]

    async def _of_templates(self) -> list[Metric]:
        now_s = time.monotonic()
        if self._templates is None or now_s - self._templates[0] > TEMPLATES_FRESH_S:
            found = await self._daemon.sandboxes.shelf.templates() if self._daemon.sandboxes.can_sleep else []
            self._templates = (now_s, len(found), sum(template.size_bytes for template in found))
        count = GaugeMetricFamily("hearth_templates", "Machines kept ready to be cloned.")
        count.add_metric((), self._templates[1])
        size = GaugeMetricFamily("hearth_template_bytes", "What they take on disk.")
        size.add_metric((), self._templates[2])
        return [count, size]


class _Now(Collector):
    """Metrics that were read already, in the shape of a registry."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics


def gauge_of(name: str, help_: str, label: str, values: Mapping[str, float]) -> Metric:
    """Give one gauge with a value for each value of its label."""
    family = GaugeMetricFamily(name, help_, labels=(label,))
    for value, count in values.items():
        family.add_metric((value,), count)
    return family


def of_host(host: Host) -> list[Metric]:
    """Tell of the host: what an alert about a full one needs, where no node exporter runs."""
    figures = (
        ("hearth_host_cpus", "CPUs.", host.cpus),
        ("hearth_host_load1", "Load average of a minute.", host.load_1m),
        ("hearth_host_memory_bytes", "Memory.", host.memory.total_mib * MIB),
        ("hearth_host_memory_available_bytes", "Memory to be had without swapping.", host.memory.available_mib * MIB),
        ("hearth_host_swap_free_bytes", "Unused swap.", host.memory.swap_free_mib * MIB),
        ("hearth_host_disk_bytes", "Size of the data directory's file system.", host.disk_total_bytes),
        ("hearth_host_disk_free_bytes", "What of it is free.", host.disk_free_bytes),
    )
    found: list[Metric] = []
    for name, help_, value in figures:
        family = GaugeMetricFamily(name, help_)
        family.add_metric((), value)
        found.append(family)
    return found


def of_each(sandboxes: Sequence[Sandbox], usages: Mapping[str, Usage]) -> list[Metric]:
    """Tell what single sandboxes use; a name is in the ``info`` alone, to be joined by id."""
    info = GaugeMetricFamily("hearth_sandbox_info", "What a sandbox is.", labels=("sandbox", "name", "owner", "image"))
    cpu = CounterMetricFamily("hearth_sandbox_cpu_seconds", "CPU time of guest and VMM.", labels=("sandbox",))
    memory = GaugeMetricFamily(
        "hearth_sandbox_memory_bytes",
        "Memory of guest and VMM: unique (would be free without it, swap included), shared, swapped.",
        labels=("sandbox", "kind"),
    )
    disk = GaugeMetricFamily("hearth_sandbox_disk_bytes", "Room its files take.", labels=("sandbox",))
    sides = ("sandbox", "direction")
    carried = CounterMetricFamily("hearth_sandbox_network_bytes", "Bytes from and to a sandbox.", labels=sides)
    packets = CounterMetricFamily("hearth_sandbox_network_packets", "Packets from and to a sandbox.", labels=sides)
    for sandbox in sandboxes:
        usage = usages.get(sandbox.id)
        if usage is None:
            continue
        label = sandbox.id
        info.add_metric((label, sandbox.spec.name, sandbox.owner, sandbox.spec.image), 1)
        disk.add_metric((label,), usage.disk_bytes)
        if usage.cpu_s is not None:
            cpu.add_metric((label,), usage.cpu_s)
        if usage.memory is not None:
            memory.add_metric((label, "unique"), usage.memory.private_bytes + usage.memory.swapped_bytes)
            memory.add_metric((label, "shared"), usage.memory.shared_bytes)
            memory.add_metric((label, "swapped"), usage.memory.swapped_bytes)
        if usage.traffic is not None:
            carried.add_metric((label, "received"), usage.traffic.received_bytes)
            carried.add_metric((label, "sent"), usage.traffic.sent_bytes)
            packets.add_metric((label, "received"), usage.traffic.received_packets)
            packets.add_metric((label, "sent"), usage.traffic.sent_packets)
    return [info, cpu, memory, disk, carried, packets]
