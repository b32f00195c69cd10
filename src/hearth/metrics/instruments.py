"""What this process counts and times as it goes, in a registry of its own: every name is spelled here and nowhere else.

Each label takes its values from a closed set: route templates, codes, kinds. Ids and names never are labels of these;
what is told of single sandboxes is read when somebody asks (``hearth.server.exposition``).
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

# A second series for each, which would say no more than process_start_time_seconds.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()

REQUEST_BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""A read takes half a millisecond, a warm wake ten, a create or a cold wake from a tenth of a second to some."""
WAKE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
AGENT_BUCKETS_S = (0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60)
STEP_BUCKETS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STORE_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)

HTTP_REQUESTS = Counter("hearth_http_requests", "Requests answered.", ("method", "route", "status"), registry=REGISTRY)
HTTP_SECONDS = Histogram(
    "hearth_http_request_seconds",
    "From a request's head to the end of its answer.",
    ("method", "route"),
    buckets=REQUEST_BUCKETS_S,
    registry=REGISTRY,
)
HTTP_ACTIVE = Gauge("hearth_http_requests_active", "Requests under way.", registry=REGISTRY)
ERRORS = Counter("hearth_errors", "Errors that callers were told, by code.", ("code",), registry=REGISTRY)

JOB_STEPS = Histogram(
    "hearth_job_step_seconds",
    "Steps of jobs, done and undone.",
    ("kind", "step", "phase"),
    buckets=STEP_BUCKETS_S,
    registry=REGISTRY,
)
JOB_STEP_FAILURES = Counter(
    "hearth_job_step_failures", "Steps of jobs that failed.", ("kind", "step", "phase"), registry=REGISTRY
)
JOBS_ENDED = Counter("hearth_jobs_ended", "Jobs that came to an end.", ("kind", "outcome"), registry=REGISTRY)

WAKES = Histogram(
    "hearth_wake_seconds",
    "Wakes: from warm (its CPUs stood still) or cold (it was on disk), however many callers waited for one.",
    ("kind", "outcome"),
    buckets=WAKE_BUCKETS_S,
    registry=REGISTRY,
)
SNAPSHOT_SECONDS = Histogram(
    "hearth_snapshot_seconds",
    "Snapshots taken, from the freezing of the guest to the verified file: to sleep (stop) or as a copy.",
    ("kind",),
    buckets=STEP_BUCKETS_S,
    registry=REGISTRY,
)
SNAPSHOT_PAUSE_SECONDS = Histogram(
    "hearth_snapshot_pause_seconds",
    "How long the guest's CPUs stood still for a snapshot.",
    ("kind",),
    buckets=WAKE_BUCKETS_S,
    registry=REGISTRY,
)
SNAPSHOT_BYTES = Counter("hearth_snapshot_bytes", "Bytes that snapshots took on disk.", ("kind",), registry=REGISTRY)
SNAPSHOT_FAILURES = Counter("hearth_snapshot_failures", "Snapshots that failed.", ("kind",), registry=REGISTRY)

AGENT_SECONDS = Histogram(
    "hearth_agent_request_seconds",
    "From a request to a guest's agent to the first it says; a silent command's own time is in it.",
    ("request",),
    buckets=AGENT_BUCKETS_S,
    registry=REGISTRY,
)
EXECS_STARTED = Counter("hearth_execs_started", "Commands handed to guests.", registry=REGISTRY)
EXECS_ENDED = Counter(
    "hearth_execs_ended", "Commands whose end was seen: zero, nonzero, or by a signal.", ("outcome",), registry=REGISTRY
)
PROXY_ACTIVE = Gauge("hearth_proxy_connections", "Open connections to ports of sandboxes.", registry=REGISTRY)
PROXY_OPENED = Counter("hearth_proxy_connections_opened", "Connections made to ports of sandboxes.", registry=REGISTRY)
PROXY_BYTES = Counter(
    "hearth_proxy_bytes", "Bytes carried to and from ports of sandboxes.", ("direction",), registry=REGISTRY
)
STORE_SECONDS = Histogram(
    "hearth_store_seconds",
    "Transactions of the store, waiting in line included.",
    ("lane",),
    buckets=STORE_BUCKETS_S,
    registry=REGISTRY,
)
EVENT_SUBSCRIBERS = Gauge("hearth_event_subscribers", "Listeners to the stream of events.", registry=REGISTRY)
