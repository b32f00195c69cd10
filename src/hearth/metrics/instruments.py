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
JOB_BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
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
JOB_SECONDS = Histogram(
    "hearth_job_seconds",
    "Jobs from their first start to their end, however many daemons worked on them.",
    ("kind", "outcome"),
    buckets=JOB_BUCKETS_S,
    registry=REGISTRY,
)
JOB_WAIT_SECONDS = Histogram(
    "hearth_job_wait_seconds",
    "How long jobs that ended had waited in line.",
    ("kind",),
    buckets=JOB_BUCKETS_S,
    registry=REGISTRY,
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
STORE_RETRIES = Counter(
    "hearth_store_retries",
    "Transactions that were done again: the server was lost, another was in the way, a row was there already.",
    ("reason",),
    registry=REGISTRY,
)
STORE_FAILURES = Counter(
    "hearth_store_failures", "Transactions that failed for the database's own reasons.", ("code",), registry=REGISTRY
)
EVENT_SUBSCRIBERS = Gauge("hearth_event_subscribers", "Listeners to the stream of events.", registry=REGISTRY)

IMAGE_REQUESTS = Counter(
    "hearth_image_cache_requests", "Golden images asked for: hit, miss or refused.", ("outcome",), registry=REGISTRY
)
IMAGE_BYTES = Counter(
    "hearth_image_bytes",
    "Bytes of golden images: fetched, resumed (there from an earlier try), evicted, populated into volumes.",
    ("way",),
    registry=REGISTRY,
)
IMAGE_RETRIES = Counter("hearth_image_retries", "Tries at an image's source that failed by chance.", registry=REGISTRY)
IMAGE_EVICTIONS = Counter(
    "hearth_image_evictions",
    "Golden images removed from the cache: for room, unused, or on request.",
    ("why",),
    registry=REGISTRY,
)
IMAGE_SECONDS = Histogram(
    "hearth_image_stage_seconds",
    "Stages of a golden image's way: download, judge, populate.",
    ("stage",),
    buckets=STEP_BUCKETS_S,
    registry=REGISTRY,
)
WEBHOOK_DELIVERIES = Counter(
    "hearth_webhook_deliveries",
    "Calls about jobs: delivered, failed (sent again), given_up.",
    ("outcome",),
    registry=REGISTRY,
)
WEBHOOK_SECONDS = Histogram(
    "hearth_webhook_seconds", "How long such calls take.", buckets=WAKE_BUCKETS_S, registry=REGISTRY
)
REDIS_UP = Gauge("hearth_redis_up", "Whether Redis answers, for what it is used.", ("use",), registry=REGISTRY)
